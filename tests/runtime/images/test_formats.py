"""What a file is called whose format is not read, and how a format is known."""

import pytest

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import load_image

OTHERS = [
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF document"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    (b"\xc5\xd0\xd3\xc6\x20\0\0\0", "PostScript"),
    (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF or AVIF"),
    (b"\0\0\0\x1cftypavif\0\0\0\0", "HEIF or AVIF"),
    (b"\0\0\0\x20ftypisom\0\0\2\0", "HEIF or AVIF, or a film"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "a RIFF file that is no WebP"),
    (b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (b"\x09PNG\r\n\x1a\n\0", "a PNG whose eighth bits were lost"),
    (b"8BPS\0\1\0\0", "a Photoshop document"),
    (b"gimp xcf file\0", "a GIMP document"),
    (b"\0\0\1\0\1\0\x10\x10", "a Windows icon"),
    (b"DDS \x7c\0\0\0", "a DDS texture"),
    (b"qoif\0\0\0\1", "QOI"),
    (b"v/1\x01\2\0\0\0", "OpenEXR"),
    (b"#?RADIANCE\n", "Radiance HDR"),
    (b"\x1a\x45\xdf\xa3\x01", "a film"),
    (b"PK\x03\x04\x14\0", "a ZIP archive"),
    (b"\x1f\x8b\x08\0", "a gzip archive"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a Git LFS pointer"),
    (b"<!DOCTYPE html>\n<html>", "a web page"),
    (b"\xef\xbb\xbf<?xml version='1.0'?>", "SVG or XML"),
    (b"  <svg xmlns='http://www.w3.org/2000/svg'/>", "SVG or XML"),
    (bytes(100), "zeros"),
    (b"GIFs are animated images", "text"),
    (b"BMW is a maker of cars", "text"),
    (b"Please find the image below", "text"),
    (b"\x80\x81\x82\x83\x84", "an unknown format"),
]


@pytest.mark.parametrize(("data", "name"), OTHERS)
def test_other_formats_are_named(data: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=f"is not an image that can be read: .*found {name}"):
        load_image(data)


STARTS = [
    b"\x89PNG", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\x10JFIF", b"GIF89a",
    b"GIF87a\1\0", b"BM\0\0\0\0", b"II*\0", b"MM\0*\0", b"II+\0\x08\0\0\0", b"P6 3 ", b"P4\n3",
    b"RIFF\x24\0\0\0WEBP", b"RIFF\x24\0\0\0WEBPVP8 \x10",
]  # fmt: skip


@pytest.mark.parametrize("data", STARTS)
def test_the_beginning_of_an_image_is_cut_short(data: bytes) -> None:
    with pytest.raises(ImageError, match="is cut short"):
        load_image(data)
