"""The numbers of every stage of an answer, for comparison with another implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mvlm.runtime.model import FloatArray


@dataclass
class Trace:
    """Every stage's numbers.

    The arrays are float32, but for the ids; see the design of ``chat --dump``.

    Attributes:
        pixel_values: ``(images, 3, S, S)``, one entry an image.
        vision_features: ``(images, patches, C)``.
        projector_output: ``(images, image_tokens, hidden)``.
        prompt_ids: ``(ids,)`` int64, an image as -200.
        prefill_logits: ``(positions, vocabulary)``, in parts.
        step_logits: ``(tokens, vocabulary)``: the logits that each answered token was chosen from.
    """

    pixel_values: list[FloatArray] = field(default_factory=list)
    vision_features: list[FloatArray] = field(default_factory=list)
    projector_output: list[FloatArray] = field(default_factory=list)
    prompt_ids: Sequence[int] = ()
    prefill_logits: list[FloatArray] = field(default_factory=list)
    step_logits: list[FloatArray] = field(default_factory=list)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the recorded stages as arrays by name; a stage that did not run is absent."""
        stages: dict[str, list[FloatArray]] = {
            "pixel_values": self.pixel_values,
            "vision_features": self.vision_features,
            "projector_output": self.projector_output,
            "prefill_logits": self.prefill_logits,
            "step_logits": self.step_logits,
        }
        arrays: dict[str, npt.NDArray[np.generic]] = {
            name: np.concatenate(parts) for name, parts in stages.items() if parts
        }
        arrays["prompt_ids"] = np.asarray(self.prompt_ids, np.int64)
        return arrays
