"""The web page at ``/``: static files of the folder ``page``, read once, and their headers.

The files hold no secrets and take no key; the page asks for one where the API wants it. They are
served by exact name, so that no path leads anywhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mvlm.runtime.server.observability.request_context import REQUEST

PAGE = Path(__file__).parent / "page"

# By a file's suffix; files of other kinds, such as notes and licences, are not served.
MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}

_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS: Mapping[str, str] = {
    # Is kept, but asked for each time: an upgraded server's page is seen at once.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page.

    Attributes:
        content: Its bytes.
        media_type: Of the header ``Content-Type``.
        etag: Names the content.
    """

    content: bytes = field(repr=False)
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> PageFile:
        """Read a file of one of the `MEDIA_TYPES`."""
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(content, MEDIA_TYPES[path.suffix], etag)

    def response(self, request: Request) -> Response:
        """Return the file, or 304 if the client has it."""
        headers = {**HEADERS, "ETag": self.etag}
        known = request.headers.get("if-none-match", "")
        if self.etag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def read_page() -> dict[str, PageFile]:
    """Return the page's files by their paths below its folder, such as ``main.js``."""
    return {
        path.relative_to(PAGE).as_posix(): PageFile.read(path)
        for path in sorted(PAGE.rglob("*"))
        if path.suffix in MEDIA_TYPES
    }


def page_routes() -> list[Route]:
    """Return the routes of ``/`` and of the files below ``/page``, both named ``page``.

    They are for people: the OpenAPI document leaves them out.
    """
    files = read_page()

    async def index(request: Request) -> Response:
        REQUEST.get().route = "/"
        return files["index.html"].response(request)

    async def file(request: Request) -> Response:
        REQUEST.get().route = "/page"
        name = request.path_params["name"]
        # Only `/` serves the document, because its links are relative to it.
        if name not in files or name == "index.html":
            raise HTTPException(404)
        return files[name].response(request)

    return [
        Route("/", index, methods=["GET"], name="page"),
        Route("/page/{name:path}", file, methods=["GET"], name="page"),
    ]
