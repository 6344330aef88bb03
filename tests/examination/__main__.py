"""Prints how often the bundled model is right: ``python -m tests.examination``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.examination.artifacts import BUNDLED, compile_bundled
from tests.examination.examine import Candidate, examine_held_out, examine_independent
from tests.examination.report import summary


def main() -> None:
    """Compiles the bundled model, examines it and prints Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.examination", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED)
    parser.add_argument("--quantization", nargs="+", default=["q0f32", "q0f16", "q4f16_1"])
    parser.add_argument("--held-out", type=int, default=1000, help="scenes of the training world")
    parser.add_argument("--independent", type=int, default=300, help="images by other hands")
    parser.add_argument("--seed", type=int, default=0, help="another independent set")
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong answers")
    parser.add_argument("--threads", type=int, help="all cores if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        candidates = [
            Candidate(
                scheme, compile_bundled(scheme, Path(folder), options.checkpoint), options.threads
            )
            for scheme in options.quantization
        ]
        if options.held_out:
            outcomes = examine_held_out(candidates, options.held_out)
            print(f"Held-out scenes\n\n{summary(outcomes, ['kind'], options.wrong)}\n")
        if options.independent:
            outcomes = examine_independent(candidates, options.independent, options.seed)
            traits = [trait for trait in outcomes[0].traits if trait != "palette"]
            print(f"Images by other hands\n\n{summary(outcomes, traits, options.wrong)}")


if __name__ == "__main__":
    main()
