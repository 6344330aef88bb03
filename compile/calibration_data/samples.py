"""The data that calibration reads: sequences of token ids, with their images as files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import ImageLimits, ImageSpec, load_image, preprocess
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID

IMAGE_LIMITS = ImageLimits(max_bytes=64 * 2**20)
"""Images over these limits are passed over: one would take longer than all others together."""


@dataclass(frozen=True)
class SampleImage:
    """An image of a sample. Its pixels are read when they are asked for.

    Attributes:
        path: The file.
        sha256: Of the file's bytes, when the sample was drawn.
    """

    path: Path
    sha256: str

    @classmethod
    def read(cls, path: Path, spec: ImageSpec) -> SampleImage:
        """Read and preprocess an image once, to know that it can be used.

        Raises:
            ImageError: It cannot be read, or is over a limit.
        """
        data = _read_bytes(path)
        preprocess(load_image(data, limits=IMAGE_LIMITS), spec)
        return cls(path, hashlib.sha256(data).hexdigest())

    def pixels(self, spec: ImageSpec) -> npt.NDArray[np.float32]:
        """Return the vision tower's input, ``(1, 3, size, size)`` float32.

        Raises:
            ImageError: The file has changed since the sample was drawn.
        """
        data = _read_bytes(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ImageError(
                f"{self.path} has changed since calibration began",
                fix="Leave the images alone until calibration ends, and start it again.",
            )
        return preprocess(load_image(data, limits=IMAGE_LIMITS), spec)


def _read_bytes(path: Path) -> bytes:
    """Read a file that is not larger than :data:`IMAGE_LIMITS` allows."""
    try:
        size = path.stat().st_size
        if size > IMAGE_LIMITS.max_bytes:
            raise ImageError(
                f"{path} is too large",
                expected=f"at most {IMAGE_LIMITS.max_bytes:,} bytes",
                found=f"{size:,}",
            )
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise ImageError(f"cannot read {path}", found=error.strerror) from None


@dataclass(frozen=True)
class Sample:
    """One sequence, from its first position.

    Attributes:
        ids: As ``Tokenizer.encode_prompt`` makes them: the beginning of the sequence first, and
            :data:`~mvlm.runtime.tokenizer.IMAGE_TOKEN_ID` in the place of each image.
        images: One for each place, in their order.
    """

    ids: tuple[int, ...]
    images: tuple[SampleImage, ...] = ()

    def positions(self, image_tokens: int) -> int:
        """Count the decoder's positions, of which an image takes `image_tokens`."""
        return len(self.ids) + len(self.images) * (image_tokens - 1)


@dataclass(frozen=True)
class SourceSummary:
    """What was drawn from one file.

    Attributes:
        path: The file.
        samples: Sequences drawn.
        images: Images in them.
        positions: Positions of the decoder that they take, images included.
        skipped: How many entries were passed over, by reason.
    """

    path: Path
    samples: int
    images: int
    positions: int
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CalibrationData:
    """The sequences to calibrate with.

    Attributes:
        samples: At least one, in an order in which the sources alternate.
        sources: One for each file, in the order in which they were given.
        warnings: What the user should know, one sentence each.
    """

    samples: tuple[Sample, ...]
    sources: tuple[SourceSummary, ...]
    warnings: tuple[str, ...] = ()

    @property
    def positions(self) -> int:
        """Positions of the decoder in all samples, images included."""
        return sum(source.positions for source in self.sources)

    @property
    def digest(self) -> str:
        """The sha256 of the samples' ids and images: equal data have equal digests.

        Neither paths nor entries that were not drawn are part of it.
        """
        digest = hashlib.sha256(b"calibration data\n")
        for sample in self.samples:
            digest.update(" ".join(map(str, sample.ids)).encode())
            digest.update("".join(f" {image.sha256}" for image in sample.images).encode() + b"\n")
        return digest.hexdigest()


def cut(sample: Sample, limit: int, image_tokens: int) -> Sample:
    """Keep the first `limit` positions of a sample, and of its images those that are whole."""
    positions = images = 0
    for index, token in enumerate(sample.ids):
        is_image = token == IMAGE_TOKEN_ID
        positions += image_tokens if is_image else 1
        if positions > limit:
            return Sample(sample.ids[:index], sample.images[:images])
        images += is_image
    return sample
