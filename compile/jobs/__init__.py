"""Compile jobs by the dozen: a matrix of models, schemes and devices. Imports no tvm.

==================  ================================================================
:mod:`matrix`       reads a matrix file
:mod:`plan`         makes jobs of it, and the steps that they share
:mod:`step`         one step: what a worker is asked, and how it went
:mod:`coordinator`  has the steps done, each once, and those that failed again
:mod:`heartbeat`        renews the run's heartbeat and leases meanwhile
``engines/``        where steps are done: processes here, or a Ray cluster
:mod:`worker`       the process that does one step
:mod:`work`         what it does; the only module here that imports the compiler
``store/``          where everything is kept: results, leases, runs
:mod:`states`       the documents of runs and of what became of their steps
:mod:`report`       a run as one document; :mod:`html_report` draws it, :mod:`publish` writes both
==================  ================================================================
"""
