"""What a vision tower expects of an image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mvlm.runtime.errors import ConfigError

Colour: TypeAlias = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)

_MAX_SPEC_SIZE = 4096


@dataclass(frozen=True)
class ImageSpec:
    """What a vision tower expects of an image.

    Attributes:
        size: Side of the square input in pixels.
        mean: Mean of red, green and blue, each in [0, 1].
        std: Standard deviation of red, green and blue, above 0.
        aspect: ``pad`` extends the image to a square with the mean colour (the official
            ``image_aspect_ratio: pad``); ``crop`` resizes the shorter edge to `size` and keeps
            the centre (every other value of that key).

    Raises:
        ConfigError: A value is out of its range.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    aspect: Literal["pad", "crop"] = "pad"

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= _MAX_SPEC_SIZE:
            raise ConfigError("image size", expected=f"1 to {_MAX_SPEC_SIZE}", found=self.size)
        _check_colour("image_mean", self.mean, "numbers from 0 to 1", lambda v: 0 <= v <= 1)
        _check_colour("image_std", self.std, "numbers above 0, up to 1", lambda v: 0 < v <= 1)
        if self.aspect not in ("pad", "crop"):
            raise ConfigError("image aspect", expected="pad or crop", found=repr(self.aspect))

    @property
    def background(self) -> Colour:
        """The padding colour in 8 bits: the mean, truncated as the official code does."""
        red, green, blue = (int(value * 255) for value in self.mean)
        return red, green, blue

    def to_json(self) -> dict[str, object]:
        """The same as a JSON object."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "aspect": self.aspect,
        }

    @classmethod
    def from_json(cls, value: object) -> "ImageSpec":
        """Read what :meth:`to_json` wrote.

        Raises:
            ConfigError: `value` is not such an object.
        """
        keys = {"size", "mean", "std", "aspect"}
        if not isinstance(value, dict) or set(value) != keys:
            found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise ConfigError("image settings", expected=f"the keys {sorted(keys)}", found=found)
        mean, std = (
            tuple(value[key]) if isinstance(value[key], list) else value[key]
            for key in ("mean", "std")
        )
        return cls(size=value["size"], mean=mean, std=std, aspect=value["aspect"])


def _check_colour(name: str, colour: object, expected: str, holds: Callable[[float], bool]) -> None:
    if (
        not isinstance(colour, tuple)
        or len(colour) != 3
        or not all(type(value) in (int, float) and holds(value) for value in colour)
    ):
        raise ConfigError(name, expected=f"three {expected}", found=colour)
