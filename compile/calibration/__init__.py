"""Calibration: rounding a model's weights by what its layers read (GPTQ).

:mod:`~mvlm.compile.calibration.find` finds a job's rounded matrices or has them made, by
:mod:`~mvlm.compile.calibration.calibrate`.
"""
