"""Conversations in LLaVA's format, with images from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from random import Random

from mvlm.compile.calibration_data.json_entries import JsonEntries
from mvlm.compile.calibration_data.language import PieceCount
from mvlm.compile.calibration_data.llava_entry import LlavaEntry, parse_entry
from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.compile.calibration_data.samples import Sample, SampleImage, cut
from mvlm.compile.calibration_data.shuffle import shuffled
from mvlm.compile.calibration_data.skipped import Skipped, UnusableEntryError
from mvlm.runtime.errors import ImageError
from mvlm.runtime.template import Marker

MAX_SKIPPED = 10_000
"""So many entries in a row without one that can be used end the search in a file."""


class LlavaSource:
    """Conversations of a file.

    Args:
        path: The file: checked, UTF-8.
        images: The folder that the images' names are relative to.
        model: What reads them.
        length: Positions of a sample, besides those of one image.
        rng: Chooses among the entries.

    Attributes:
        pieces: Counts of the questions and answers that were drawn so far.
        skipped: Entries that were passed over so far.

    Raises:
        UsageError: The file is not a list of entries.
    """

    def __init__(
        self, path: Path, images: Path, model: ModelInput, length: int, rng: Random
    ) -> None:
        self.path = path
        self.pieces = PieceCount()
        self.skipped = Skipped()
        self._entries = JsonEntries(path)
        self._images = images
        self._model = model
        self._length = length
        self._rng = rng

    def samples(self) -> Iterator[Sample]:
        """Yield conversations in random order, but for those that cannot be used.

        Raises:
            UsageError: An entry is not in LLaVA's format.
        """
        in_a_row = 0
        for index in shuffled(len(self._entries), self._rng):
            try:
                entry = parse_entry(self._entries.read(index), self._entries.name(index))
                sample = self._sample(entry)
            except UnusableEntryError as error:
                self.skipped.add(error)
                in_a_row += 1
                if in_a_row == MAX_SKIPPED:
                    return
            else:
                in_a_row = 0
                yield sample

    def _sample(self, entry: LlavaEntry) -> Sample:
        model, template = self._model, self._model.template
        if entry.images and model.image is None:
            reason = "with images, which the model does not read"
            raise UnusableEntryError(reason, entry.images[0])
        images = tuple(self._image(name) for name in entry.images)
        turns = entry.turns if template.has_turns else entry.turns[:1]
        segments = template.render(turns)
        if turns[-1].answer is not None:
            segments = (*segments, Marker.EOS)
        for turn in turns:
            self.pieces.encode(f"{turn.question} {turn.answer or ''}", model.tokenizer)
        self.skipped.unknown_keys.update(entry.unknown_keys)
        ids = tuple(model.tokenizer.encode_prompt(segments))
        limit = self._length + (model.image_tokens if images else 0)
        return cut(Sample(ids, images), limit, model.image_tokens)

    def _image(self, name: str) -> SampleImage:
        """Find an image and check that it can be read."""
        assert self._model.image is not None
        if not _is_inside(name):
            raise UnusableEntryError("with an image outside of the images' folder", name)
        path = self._images / name
        try:
            if not path.is_file():
                raise UnusableEntryError(f"whose image is not in {self._images}", name)
            return SampleImage.read(path, self._model.image)
        except (ImageError, OSError, ValueError) as error:
            raise UnusableEntryError("whose image cannot be read", f"{name}: {error}") from None


def _is_inside(name: str) -> bool:
    """Whether a name leads to a place inside of the folder, on any system.

    Links within the folder are the user's own, and are followed.
    """
    if not name or "\0" in name:
        return False
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    is_absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return not is_absolute and ".." not in windows.parts
