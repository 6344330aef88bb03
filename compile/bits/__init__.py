"""Plans of bits: which layers of the decoder get 3, 4 or 8 bits, by what that costs the model.

:mod:`~mvlm.compile.bits.sensitivity` measures what rounding each unit alone costs,
:mod:`~mvlm.compile.bits.choose` makes a plan of it, and :mod:`~mvlm.compile.bits.find` gives a job
its plan.
"""
