"""What the benchmark asks of a tool; each tool's file has a class that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mvlm.runtime.errors import MvlmError
from mvlm.runtime.image import ImageSpec

FloatArray = npt.NDArray[np.float32]
RgbImage = npt.NDArray[np.uint8]  # (S, S, 3), red, green and blue
# llama.cpp's importance matrix: by the matrix's name in the GGUF file, the mean square of each of
# its inputs, (K,) float32.
Importance = Mapping[str, FloatArray]


@dataclass(frozen=True)
class Setup:
    """How a tool opens the model.

    Attributes:
        files: What it reads, by the tool's own names.
        threads: Threads that it computes on.
        context: Positions that its KV cache must hold.
        vocabulary: Rows of the embedding table.
        bos: The id that starts every prompt.
        image: The tower's input; None for a model of text only.
        has_vision: Whether images will be encoded; if not, a tool need not load its tower.
        sequences: How many sequences share the KV cache.
    """

    files: dict[str, str]
    threads: int
    context: int
    vocabulary: int
    bos: int
    image: ImageSpec | None
    has_vision: bool
    sequences: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the setup as plain JSON values."""
        image = None if self.image is None else self.image.to_json()
        return {**vars(self), "image": image}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Setup:
        """Read what :meth:`to_json` wrote."""
        image = values["image"]
        spec = None if image is None else ImageSpec.from_json(image)
        return cls(**(values | {"image": spec}))


class Runner(Protocol):
    """A model opened in a tool. The worker times the calls, each as a whole."""

    def facts(self) -> dict[str, Any]:
        """Say what there is to know of the tool: versions, flags, how it holds the weights."""

    def prefill(self, ids: Sequence[int]) -> None:
        """Forget what was read, read a prompt, and choose the most likely next token."""

    def decode(self) -> None:
        """Read the chosen token and choose the next one; an end of sequence ends nothing."""

    def set_image(self, image: RgbImage) -> None:
        """Take an image and bring it into the shape that the tower reads."""

    def encode_image(self) -> None:
        """Run tower and projector on the image that was shown."""

    def features(self) -> FloatArray | None:
        """Return the tower's features of that image, or None where the tool keeps them."""

    def first_token(self, image: RgbImage, ids: Sequence[int]) -> None:
        """Forget everything, read an image and then ids, and choose the next token."""


@runtime_checkable
class BatchRunner(Protocol):
    """A model opened in a tool that decodes several sequences at once."""

    def begin_batch(self, prompts: Sequence[Sequence[int]]) -> None:
        """Forget everything, read the prompts, and choose the next token of each."""

    def decode_batch(self) -> None:
        """Read the chosen token of every sequence in one step, and choose the next ones."""


class TextOnlyRunner:
    """The half of a `Runner` that is about images, for a tool that has no MobileVLM.

    Attributes:
        name: The tool's.
    """

    name: str

    def set_image(self, image: RgbImage) -> None:
        """Refuse."""
        self._refuse()

    def encode_image(self) -> None:
        """Refuse."""
        self._refuse()

    def features(self) -> FloatArray | None:
        """Return None."""
        return None

    def first_token(self, image: RgbImage, ids: Sequence[int]) -> None:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise MvlmError(f"{self.name} has no MobileVLM", expected="text")
