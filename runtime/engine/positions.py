"""What a sequence's positions are computed from: tokens, and the rows of encoded images."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from mvlm.runtime.device.device import DeviceArray
from mvlm.runtime.engine.sequence import PositionKey
from mvlm.runtime.errors import PromptError
from mvlm.runtime.model import Model
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID


@dataclass(frozen=True)
class ImageEmbedding:
    """An image as the decoder's input.

    Attributes:
        digest: The sha256 of its pixels; equal images share cache positions.
        embeddings: ``(1, image_tokens, hidden)`` float32, in the device's memory.
    """

    digest: bytes
    embeddings: DeviceArray = field(repr=False)

    @property
    def count(self) -> int:
        """Positions of the sequence that it takes."""
        count: int = self.embeddings.shape[1]
        return count


class Positions:
    """The positions of a prompt and of its answer so far.

    Args:
        ids: The prompt, with -200 in the place of each image.
        images: As many as there are places.

    Raises:
        PromptError: The prompt is empty, or the images do not match their places.

    Attributes:
        ids: The prompt and the answer, an image as -200.
        keys: What each position holds: a token's id, or an image's digest and row.
    """

    def __init__(self, ids: Sequence[int], images: Sequence[ImageEmbedding] = ()) -> None:
        check_places(ids, len(images))
        self.ids, self._images = list(ids), list(images)
        count = images[0].count if images else 0
        self.keys = position_keys(ids, [image.digest for image in images], count)
        # Where each image begins.
        places = [at for at, token in enumerate(ids) if token == IMAGE_TOKEN_ID]
        self._starts = [at + number * (count - 1) for number, at in enumerate(places)]

    def __len__(self) -> int:
        """Return the number of positions."""
        return len(self.keys)

    def append(self, token: int) -> None:
        """Append a token of the answer."""
        self.ids.append(token)
        self.keys.append(token)

    def copy(self) -> Positions:
        """Return the same positions, to be extended apart."""
        return Positions(self.ids, self._images)

    def tokens(self, begin: int, end: int) -> list[int] | None:
        """Return the tokens at some positions; None if an image is among them."""
        found = [key for key in self.keys[begin:end] if isinstance(key, int)]
        return found if len(found) == end - begin else None

    def embeddings(self, model: Model, begin: int, end: int) -> list[DeviceArray]:
        """Return the embeddings ``(1, n, hidden)`` of some positions, in parts."""
        device, parts = model.device, []
        while begin < end:
            at = bisect_right(self._starts, begin) - 1
            stop = self._starts[at + 1] if at + 1 < len(self._starts) else len(self.keys)
            if at >= 0 and begin < self._starts[at] + self._images[at].count:
                image, start = self._images[at], self._starts[at]
                stop = min(end, start + image.count)
                parts.append(device.rows(image.embeddings, begin - start, stop - start))
            else:
                stop = min(end, stop)
                parts.append(model.embed(self.tokens(begin, stop) or ()))
            begin = stop
        return parts


def position_keys(
    ids: Sequence[int], digests: Sequence[bytes], image_tokens: int
) -> list[PositionKey]:
    """Return what each position of a prompt holds.

    Args:
        ids: The prompt, with -200 in the place of each image.
        digests: Of the images, one for each place.
        image_tokens: Positions that an image takes.
    """
    keys: list[PositionKey] = []
    shown = iter(digests)
    for token in ids:
        if token == IMAGE_TOKEN_ID:
            digest = next(shown)
            keys += [(digest, row) for row in range(image_tokens)]
        else:
            keys.append(token)
    return keys


def check_places(ids: Sequence[int], images: int) -> None:
    """Check that a prompt is not empty and has a place for each of its images.

    Raises:
        PromptError: It is not so.
    """
    places = ids.count(IMAGE_TOKEN_ID)
    if not ids or places != images:
        raise PromptError(
            "the prompt", expected=f"ids with {images} images", found=f"{places} places"
        )
