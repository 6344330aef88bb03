"""What kernels must compute, in NumPy: inputs to try a kernel with, and what has to come out.

The tests hold every kernel against this, and the tuner every schedule that it keeps.
"""

from mvlm.schedules.oracles.trial import Array, Trial, make_trial

__all__ = ["Array", "Trial", "make_trial"]
