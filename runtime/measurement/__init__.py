"""Measures kernels on a device for a tuner that may run elsewhere. Imports no tvm.

``python -m mvlm.runtime.measurement.worker`` measures for the process that started it;
:mod:`mvlm.runtime.measurement.server` serves them to other machines over TVM's RPC.
"""
