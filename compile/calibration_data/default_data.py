"""The data that calibration reads when the user names none.

``default/`` holds a text and 48 scenes of the bundled model's world with questions, our own and
under the licence of this package. ``python -m mvlm.training.calibration_scenes`` draws the scenes.
"""

from __future__ import annotations

from pathlib import Path

from mvlm.compile.calibration_data.language import PieceCount
from mvlm.compile.calibration_data.model_input import PromptEncoder
from mvlm.compile.calibration_data.text_source import read_block

_FOLDER = Path(__file__).parent / "default"
DEFAULT_TEXT = _FOLDER / "text.txt"
DEFAULT_SCENES = _FOLDER / "scenes.json"

_TYPICAL_BYTES = 16_384


def typical_pieces(tokenizer: PromptEncoder) -> PieceCount:
    """Return the counts of English text, by which other text is judged."""
    count = PieceCount()
    count.encode(read_block(DEFAULT_TEXT, 0, _TYPICAL_BYTES), tokenizer)
    return count
