"""Servers under load: many clients at once, ours beside llama.cpp's.

===============  ===================================================================================
module           what it is about
===============  ===================================================================================
:mod:`client`    a process that asks, and notes when each token came
:mod:`servers`   servers in processes of their own, and their memory
:mod:`figures`   throughput and percentiles of what was noted
:mod:`study`     the measurement: ``python -m mvlm.bench.serving.study``
===============  ===================================================================================
"""
