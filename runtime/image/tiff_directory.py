"""A TIFF's first directory of tags, and the same file with another one."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from mvlm.runtime.image.faults import CutShortError, DamagedError, UnsupportedError

_MAX_VALUES = 3 * 65536  # of a colour map, the longest list that is read here

# The bytes of a value, and the integers among the types.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
               13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_BYTE, _LONG = 1, 4


class Tag(IntEnum):
    """The tags whose values are read here."""

    WIDTH = 256
    HEIGHT = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    PLANES = 284
    COLOUR_MAP = 320
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339


# Those, and what else libtiff needs: fill order, fax options, predictor, tile
# sizes, ink set, JPEG's old and new tags, and what belongs to YCbCr. All others are metadata.
_NEEDED = frozenset(Tag) | {
    266, 292, 293, 317, 322, 323, 332, 347, *range(512, 522), 529, 530, 531, 532,
}  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """Where numbers stand in a classic TIFF, and in a BigTIFF."""

    order: str  # of struct
    is_big: bool

    @property
    def count(self) -> str:
        """The number of entries."""
        return self.order + ("Q" if self.is_big else "H")

    @property
    def offset(self) -> str:
        """An offset in the file."""
        return self.order + ("Q" if self.is_big else "I")

    @property
    def entry(self) -> str:
        """Tag, type, number of values, and the values or their offset."""
        return self.order + ("HHQ8s" if self.is_big else "HHI4s")


@dataclass(frozen=True)
class _Entry:
    kind: int
    count: int
    value: bytes  # as it stands in the entry


@dataclass(frozen=True)
class Directory:
    """The tags of a file that are needed to decode it.

    Attributes:
        data: The file.
        entries: By tag.
        changes: Numbers that count for a tag in place of its own.
    """

    data: bytes
    layout: _Layout
    entries: dict[int, _Entry]
    changes: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def numbers(self, tag: Tag) -> tuple[int, ...]:
        """Return a tag's integers; empty if there are none.

        Raises:
            DamagedError: They are no integers, or too many.
            CutShortError: They are behind the file's end.
        """
        if tag in self.changes:
            return self.changes[tag]
        entry = self.entries.get(tag)
        if entry is None:
            return ()
        code = _INTEGERS.get(entry.kind)
        if code is None or entry.count > _MAX_VALUES:
            raise DamagedError(
                f"{entry.count:,} values of type {entry.kind} for the tag {tag.name}"
            )
        length = entry.count * _TYPE_BYTES[entry.kind]
        if length <= len(entry.value):
            raw = entry.value[:length]
        else:
            (start,) = struct.unpack(self.layout.offset, entry.value)
            raw = self.data[start : start + length]
        if len(raw) < length:
            raise CutShortError(f"the end of the file inside of the tag {tag.name}")
        return struct.unpack(f"{self.layout.order}{entry.count}{code}", raw)

    def number(self, tag: Tag, default: int | None = None) -> int | None:
        """Return a tag's first integer, or `default`."""
        return next(iter(self.numbers(tag)), default)

    def bytes_as_numbers(self) -> dict[int, tuple[int, ...]]:
        """Return the numbers of the tags that are stored as bytes, which Pillow takes for text."""
        tags = (tag for tag in Tag if tag in self.entries)
        return {tag: self.numbers(tag) for tag in tags if self.entries[tag].kind == _BYTE}

    def but(self, changes: dict[int, tuple[int, ...]]) -> "Directory":
        """Return the directory with other numbers for some tags, and without those of none."""
        kept = {tag: entry for tag, entry in self.entries.items() if changes.get(tag) != ()}
        changes = self.changes | {tag: values for tag, values in changes.items() if values}
        return Directory(self.data, self.layout, kept, changes)

    def is_cut_short(self) -> bool:
        """Whether pixels lie behind the file's end."""
        try:
            starts = self.numbers(Tag.STRIP_OFFSETS) or self.numbers(Tag.TILE_OFFSETS)
            lengths = self.numbers(Tag.STRIP_BYTES) or self.numbers(Tag.TILE_BYTES)
        except CutShortError:
            return True
        except DamagedError:
            return False
        ends = (start + length for start, length in zip(starts, lengths, strict=False))
        return max(ends, default=0) > len(self.data)

    def to_file(self) -> bytes:
        """Return the file with this directory as its only one.

        The values of tags stay where they are; those that changed, and the directory, are written
        behind them.
        """
        layout = self.layout
        end = len(self.data)
        parts: list[bytes | memoryview] = [b"\0" * (-end % 8)]
        end += -end % 8
        entries = dict(self.entries)
        for tag, values in self.changes.items():
            raw = struct.pack(f"{layout.order}{len(values)}I", *values)
            value = raw.ljust(struct.calcsize(layout.offset), b"\0")
            if len(raw) > struct.calcsize(layout.offset):
                value = struct.pack(layout.offset, end)
                raw += b"\0" * (-len(raw) % 8)
                parts.append(raw)
                end += len(raw)
            entries[tag] = _Entry(_LONG, len(values), value)
        parts.append(struct.pack(layout.count, len(entries)))
        for tag, entry in sorted(entries.items()):
            parts.append(struct.pack(layout.entry, tag, entry.kind, entry.count, entry.value))
        parts.append(struct.pack(layout.offset, 0))
        header = self._header(end)
        return b"".join([header, memoryview(self.data)[len(header) :], *parts])

    def _header(self, start: int) -> bytes:
        """Return the header of a file whose directory is at `start`."""
        layout = self.layout
        mark = b"II" if layout.order == "<" else b"MM"
        if layout.is_big:
            return mark + struct.pack(layout.order + "HHHQ", 43, 8, 0, start)
        return mark + struct.pack(layout.order + "HI", 42, start)


def read_directory(data: bytes) -> Directory:
    """Read the first directory.

    Raises:
        DamagedError: The header or the directory cannot be.
        CutShortError: The directory is behind the file's end.
        UnsupportedError: A BigTIFF in big-endian order, which Pillow reads as damaged.
    """
    order = "<" if data[:2] == b"II" else ">"
    layout = _Layout(order, is_big=data[2:4] in (b"+\0", b"\0+"))
    if layout.is_big and order == ">":
        raise UnsupportedError("a BigTIFF in big-endian order")
    offset_at = 8 if layout.is_big else 4
    if len(data) < offset_at + struct.calcsize(layout.offset):
        raise CutShortError("the end of the file inside of its header")
    (start,) = struct.unpack_from(layout.offset, data, offset_at)
    if start < 8:
        raise DamagedError(f"a directory of tags at byte {start}")
    entries: dict[int, _Entry] = {}
    for tag, entry in _entries(data, layout, start):
        if tag in _NEEDED:
            entries.setdefault(tag, entry)
    return Directory(data, layout, entries)


def _entries(data: bytes, layout: _Layout, start: int) -> Iterator[tuple[int, _Entry]]:
    cut = CutShortError("the end of the file inside of the directory of tags")
    first = start + struct.calcsize(layout.count)
    if first > len(data):
        raise cut
    (count,) = struct.unpack_from(layout.count, data, start)
    step = struct.calcsize(layout.entry)
    if first + count * step > len(data):
        raise cut
    for position in range(first, first + count * step, step):
        tag, kind, values, value = struct.unpack_from(layout.entry, data, position)
        if kind in _TYPE_BYTES:
            yield tag, _Entry(kind, values, value)
