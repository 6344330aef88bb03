"""Compile jobs: a matrix of models, schemes and devices. Imports no tvm.

======================  ============================================================
:mod:`matrix`           reads a matrix file
:mod:`plan`             plans its jobs, and the steps that they share
:mod:`memory_estimate`  estimates a step's memory
:mod:`log_snapshot`     the tuning logs that a job is planned with
:mod:`coordinator`      runs steps, each once, and retries those that failed
``engines/``            where steps run: processes here, or a Ray cluster
:mod:`messages`         the request for a step and its outcome, as JSON
:mod:`worker_process`   starts a worker, and reads its outcome
:mod:`worker`           the worker: the process that runs one step
:mod:`execute`          the step itself; the only module here that imports the compiler
``store/``              results, leases of steps, and runs
:mod:`process`          identifies a process, whether it is alive
:mod:`states`           the documents of runs and of their steps' states
:mod:`report`           a run as one document; :mod:`html_report` renders it
:mod:`errors`           errors of stores, and whether a retry can help
======================  ============================================================
"""
