"""The data that calibration reads: drawn from the user's files, or from our own in ``default/``.

:mod:`~mvlm.compile.calibration_data.request` says which data, and draws them. Imports neither tvm
nor the rest of the compiler.
"""
