"""PBM, PGM, PPM, PAM and PFM (https://netpbm.sourceforge.net/doc/), decoded here.

Pillow decodes most of them pixel by pixel in Python, and knows neither PAM nor colour PFM.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mvlm.runtime.image.decoded_image import CheckSize, DecodedImage
from mvlm.runtime.image.faults import CutShortError, DamagedError, UnsupportedError
from mvlm.runtime.image.grey import scale_table, stretch_to_8_bit
from mvlm.runtime.image.rows import Array, build_rows

_COMMENT = re.compile(rb"#[^\r\n]*")
_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")
_NO_NUMBER = re.compile(rb"[^0-9\s]")
_MAX_TOKEN = 20
_MAX_HEADER = 10_000
_CHANNELS = {b"P1": 1, b"P2": 1, b"P3": 3, b"P4": 1, b"P5": 1, b"P6": 3, b"Pf": 1, b"PF": 3}
_PAM_KINDS = {
    b"": (1, 2, 3, 4),
    b"BLACKANDWHITE": (1,),
    b"BLACKANDWHITE_ALPHA": (2,),
    b"GRAYSCALE": (1,),
    b"GRAYSCALE_ALPHA": (2,),
    b"RGB": (3,),
    b"RGB_ALPHA": (4,),
}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    channels: int
    white: int  # the largest sample
    start: int  # of the pixels

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self.width * self.height * self.channels


def read(data: bytes, check_size: CheckSize) -> DecodedImage:
    """Read the first image of such a file.

    Raises:
        UnreadableError: The file is damaged, cut short, or a PAM that is not an image.
    """
    magic = data[:2]
    if magic in (b"Pf", b"PF"):
        return DecodedImage(_read_floats(data, magic, check_size))
    header = _parse_pam(data) if magic == b"P7" else _parse_header(data, magic)
    check_size((header.width, header.height))
    if magic in (b"P1", b"P2", b"P3"):
        samples = _plain_samples(data, header, is_bits=magic == b"P1")
    elif magic == b"P4":
        samples = _packed_bits(data, header)
    else:
        samples = _binary_samples(data, header)
    return DecodedImage(_scaled(samples, header, is_inverted=magic in (b"P1", b"P4")))


def _tokens(data: bytes, count: int) -> tuple[list[bytes], int]:
    """Return the header's next tokens behind the magic number, and what follows the last one."""
    found: list[bytes] = []
    position = 2
    for _ in range(count):
        match = _TOKEN.match(data, position, _MAX_HEADER)
        if match is None:
            if len(data) < _MAX_HEADER:
                raise CutShortError("the end of the file inside of its header")
            raise DamagedError("no header")
        if len(match[1]) > _MAX_TOKEN:
            raise DamagedError(f"{match[1][:_MAX_TOKEN]!r}… in the header")
        found.append(match[1])
        position = match.end()
    return found, position


def _integer(token: bytes, most: int) -> int:
    if not token.isdigit() or not 0 < int(token) <= most:
        raise DamagedError(f"{token.decode('latin-1')!r} in the header")
    return int(token)


def _parse_header(data: bytes, magic: bytes) -> _Header:
    has_white = magic not in (b"P1", b"P4")
    tokens, end = _tokens(data, 3 if has_white else 2)
    width, height = (_integer(token, 2**31) for token in tokens[:2])
    white = _integer(tokens[2], 65535) if has_white else 1
    return _Header(width, height, _CHANNELS[magic], white, end + 1)


def _parse_pam(data: bytes) -> _Header:
    end = data.find(b"ENDHDR\n", 0, _MAX_HEADER)
    if end < 0:
        raise (CutShortError if len(data) < _MAX_HEADER else DamagedError)("no end of the header")
    values: dict[bytes, bytes] = {}
    for line in data[2:end].splitlines():
        key, _, value = line.partition(b" ")
        if line and not line.startswith(b"#"):
            values[key] = value.strip()
    width, height, channels, white = (
        _integer(values.get(key, b"missing"), most)
        for key, most in ((b"WIDTH", 2**31), (b"HEIGHT", 2**31), (b"DEPTH", 99), (b"MAXVAL", 65535))
    )
    kind = values.get(b"TUPLTYPE", b"")
    if channels not in _PAM_KINDS.get(kind, ()):
        raise UnsupportedError(f"a PAM of {kind.decode('latin-1')[:40]!r}, {channels} channels")
    return _Header(width, height, channels, white, end + len(b"ENDHDR\n"))


def _plain_samples(data: bytes, header: _Header, *, is_bits: bool) -> Array:
    """Parse samples that are written in digits: (height, width, channels)."""
    text = _COMMENT.sub(b" ", memoryview(data)[header.start - 1 :]) + b" "
    wrong = _NO_NUMBER.search(text)
    if wrong:
        raise DamagedError(f"{wrong[0].decode('latin-1')!r} among the pixels")
    is_digit = np.frombuffer(text, np.uint8) >= ord("0")
    if is_bits:  # Their digits need nothing between them.
        return _shaped(np.frombuffer(text, np.uint8)[is_digit][: header.samples] - ord("0"), header)
    there = int(is_digit[0]) + int(np.count_nonzero(is_digit[1:] & ~is_digit[:-1]))
    # Asked before parsing: NumPy leaves samples that are missing unset.
    if there < header.samples:
        raise CutShortError(f"{there:,} of {header.samples:,} samples")
    return _shaped(np.fromstring(text, np.int64, header.samples, sep=" "), header)


def _packed_bits(data: bytes, header: _Header) -> Array:
    stride = (header.width + 7) // 8
    raw = _take(data, header.start, stride * header.height, 1, "u1").reshape(header.height, -1)
    return np.unpackbits(raw, axis=1, count=header.width)[..., None]


def _binary_samples(data: bytes, header: _Header) -> Array:
    kind = "u1" if header.white < 256 else ">u2"
    return _shaped(_take(data, header.start, header.samples, np.dtype(kind).itemsize, kind), header)


def _take(data: bytes, start: int, count: int, size: int, kind: str) -> Array:
    there = max(len(data) - start, 0)
    if there < count * size:
        raise CutShortError(f"{there:,} of {count * size:,} bytes of pixels")
    return np.frombuffer(data, kind, count=count, offset=start)


def _shaped(samples: Array, header: _Header) -> Array:
    if len(samples) < header.samples:
        raise CutShortError(f"{len(samples):,} of {header.samples:,} samples")
    if samples.max() > header.white:
        raise DamagedError(f"a sample {samples.max()} over the largest, {header.white}")
    return samples.reshape(header.height, header.width, header.channels)


def _scaled(samples: Array, header: _Header, *, is_inverted: bool) -> Image.Image:
    table = scale_table(header.white, inverted=is_inverted)
    mode = _MODES[header.channels]

    def compute(top: int, bottom: int) -> Array:
        band = table[samples[top:bottom]]
        return band[..., 0] if header.channels == 1 else band

    image = build_rows((header.width, header.height), mode, compute)
    return image.convert("RGBA" if header.channels in (2, 4) else "RGB")


def _read_floats(data: bytes, magic: bytes, check_size: CheckSize) -> Image.Image:
    """Read a PFM: floats, the lowest row first."""
    tokens, end = _tokens(data, 3)
    width, height = (_integer(token, 2**31) for token in tokens[:2])
    try:
        scale = float(tokens[2])
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale) or not scale:
        raise DamagedError(f"the scale {tokens[2].decode('latin-1')!r}")
    header = _Header(width, height, _CHANNELS[magic], 1, end + 1)
    check_size((header.width, header.height))
    samples = _take(data, header.start, header.samples, 4, "<f4" if scale < 0 else ">f4")
    rows = samples.reshape(height, width, header.channels)[::-1]
    return stretch_to_8_bit(rows[..., 0] if header.channels == 1 else rows).convert("RGB")
