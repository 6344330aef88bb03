"""Measures what quantization costs: ``python -m mvlm.bench.quality``."""

from __future__ import annotations

from mvlm.bench.quality.program import main

if __name__ == "__main__":
    main()
