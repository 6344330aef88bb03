"""TensorIR kernels and schedule rules, a kernel set in each folder.

A kernel replaces an operation's definition (see ``models.ops``) as a whole; a rule schedules the
remaining functions: fused elementwise ones and reductions. `registry` finds a set by its folder's
name.
"""
