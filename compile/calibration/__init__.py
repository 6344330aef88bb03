"""Calibration: choosing quantized weights by the layers' inputs on a small set of data.

:mod:`~mvlm.compile.calibration.data` draws the data: from the user's files, or from the text and
the images in ``default/``, which belong to this package.
"""
