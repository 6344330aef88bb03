"""A device that measures kernels for a tuner elsewhere: without tvm, as everything that runs there.

``python -m mvlm.runtime.device.worker`` measures for the process that started it;
:mod:`mvlm.runtime.device.server` serves others over TVM's RPC.
"""
