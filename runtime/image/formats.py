"""Which format a file has, by its first bytes."""

# Only these are decoded. Pillow's other decoders, of which some start programs, cannot be reached.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF")

# The largest number of first bytes that identifying a file takes.
HEAD_BYTES = 64

_SUPPORTED = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
# Texts may begin with these letters, but images hold more than text.
_SUPPORTED_UNLESS_TEXT = ((b"GIF", "GIF"), (b"BM", "BMP"))
_PNM = b"1234567fF"

# What people take for a supported image.
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"\x09PNG", "a PNG whose eighth bits were lost in a transfer"),
    (b"\x8aMNG", "an MNG animation"),
    (b"\x8bJNG", "JNG"),
    (b"8BPS", "a Photoshop document"),
    (b"gimp xcf", "a GIMP document"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"\0\0\2\0", "a Windows cursor"),
    (b"icns", "an Apple icon"),
    (b"DDS ", "a DDS texture"),
    (b"qoif", "QOI"),
    (b"farbfeld", "farbfeld"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"\x0a\x05\x01", "PCX"),
    (b"IIRO", "a camera's raw image"),
    (b"IIU\0", "a camera's raw image"),
    (b"FUJIFILM", "a camera's raw image"),
    (b"\x1a\x45\xdf\xa3", "a film"),
    (b"\0\0\1\xba", "a film"),
    (b"PK\x03\x04", "a ZIP archive, or a document that is one"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer in place of the file"),
)


def identify(head: bytes) -> str | None:
    """Return which of :data:`FORMATS` a file is, by its first :data:`HEAD_BYTES` bytes."""
    for magic, kind in _SUPPORTED:
        if head.startswith(magic):
            return kind
    for magic, kind in _SUPPORTED_UNLESS_TEXT:
        if head.startswith(magic) and not _is_text(head):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    is_pnm = len(head) > 2 and head[:1] == b"P" and head[1] in _PNM and head[2:3].isspace()
    return "PPM" if is_pnm or head[:3] in (b"P1#", b"P2#", b"P3#") else None


def describe(head: bytes) -> str:
    """Name a file that is none of :data:`FORMATS`, by its first bytes."""
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "HEIF or AVIF, or a film"
    if head[:4] == b"RIFF":
        return "a RIFF file that is no WebP, such as a film or a sound"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if start.startswith((b"<svg", b"<?xml")):
        return "SVG or XML"
    if not any(head):
        return "zeros"
    return "text" if _is_text(head) else "an unknown format"


def _is_text(head: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
