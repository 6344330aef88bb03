"""Studies: measurements that write a table into docs/, each run as a program.

``python -m mvlm.bench.studies.NAME``:

==========================  ============================================================
:mod:`footprint`            memory and time of real sizes; writes docs/models.md
:mod:`instructions`         instructions of decoding's inner loop; writes docs/arm.md
:mod:`vision_roofline`      an estimate of encoding an image on a phone; writes docs/arm.md
:mod:`cross_compile`        cost of compiling for a device; writes docs/arm.md
:mod:`tuning_gain`          a whole model, tuned and by default; writes docs/tuning.md
:mod:`cost_model_ablation`  searches with and without the cost model; writes docs/tuning.md
:mod:`job_matrix`           a matrix of small compile jobs; writes docs/jobs.md
==========================  ============================================================

What quantization costs is measured by :mod:`mvlm.bench.quality`.

They need the compiler; `mvlm bench` and device reports, which run on devices, do not import them.
"""
