"""The page's files: how they are served, and what their sources must not contain. No browser."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from mvlm.runtime.server.app import create_app
from mvlm.runtime.server.page_routes import HEADERS, MEDIA_TYPES, PAGE, read_page
from mvlm.runtime.server.settings import ServerSettings

FILES = sorted(read_page())
OURS = [name for name in FILES if not name.startswith("vendor/")]
SCRIPTS = [name for name in OURS if name.endswith(".js")]
STYLES = [name for name in OURS if name.endswith(".css")]


@pytest.fixture(scope="module")
def client() -> TestClient:
    """A server without models, which wants a key."""
    return TestClient(create_app([], ServerSettings(api_keys=("secret",))))


def source(name: str) -> str:
    return (PAGE / name).read_text()


def served_at(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_served_without_a_key(client: TestClient, name: str) -> None:
    found = client.get(served_at(name))
    assert found.status_code == 200
    assert found.content == (PAGE / name).read_bytes()
    assert found.headers["content-type"] == MEDIA_TYPES[PurePosixPath(name).suffix]
    assert {key: found.headers[key] for key in HEADERS} == HEADERS
    head = client.head(served_at(name))
    assert head.status_code == 200 and head.content == b""
    assert head.headers["content-length"] == str(len(found.content))


def test_the_policy_allows_nothing_inline_and_nothing_of_others() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy


def test_an_unchanged_file_is_not_sent_again(client: TestClient) -> None:
    etag = client.get("/").headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        found = client.get("/", headers={"if-none-match": known})
        assert found.status_code == 304 and found.content == b""
        assert found.headers["etag"] == etag
    assert client.get("/", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/index.html",
        "/page/other.js",
        "/page/MAIN.JS",
        "/page/main.js/",
        "/page//main.js",
        "/page/%2e/main.js",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page/vendor/%2e%2e/main.js",
        "/page/vendor",
        "/page/vendor/README.md",
        "/page/vendor/marked.LICENSE.txt",
        "/page/%2fetc/passwd",
        "/page/main.js%00",
        "/page/..%5capp.py",
        "//page/main.js",
        "/index.html",
        "/main.js",
    ],
)
def test_other_paths_lead_nowhere(client: TestClient, path: str) -> None:
    found = client.get(path, follow_redirects=False)
    assert found.status_code == 404
    assert found.json()["error"]["message"]


def test_the_page_may_lie_below_a_prefix() -> None:
    app = create_app([], ServerSettings())
    client = TestClient(Starlette(routes=[Mount("/below/this", app)]))
    assert client.get("/below/this/").content == (PAGE / "index.html").read_bytes()
    assert client.get("/below/this/page/main.js").status_code == 200
    # Its own addresses are relative.
    assert not re.search(r'(?:href|src)="/', source("index.html"))
    assert re.findall(r"(?:fetch|request)\([\"'`](.)", source("api.js")) == ["v", "v"]


def test_files_are_only_read(client: TestClient) -> None:
    assert client.post("/").status_code == 405
    assert client.put("/page/main.js", content=b"x").status_code == 405
    assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize("name", [*SCRIPTS, *STYLES, "index.html", "manifest.webmanifest"])
def test_a_source_names_no_other_place(name: str) -> None:
    text = source(name)
    code = re.sub(r"^\s*(//|/\*|\*).*$", "", text, flags=re.MULTILINE)
    # Namespaces are names, and are fetched by nobody.
    urls = set(re.findall(r"\bhttps?://[^\s\"'`)]+|[\"'(]//[^\s\"'`)]+", code))
    assert urls <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in code and "@import" not in code


def test_the_document_has_nothing_inline() -> None:
    text = source("index.html")
    assert not re.search(r"<script(?![^>]*\bsrc=)", text) and "<style" not in text
    assert not re.search(r"\s(on[a-z]+|style)\s*=", text) and "javascript:" not in text
    links = set(re.findall(r'(?:src|href)="([^"#]+)"', text))
    assert links and {link.removeprefix("page/") for link in links} <= set(FILES)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_makes_no_markup_and_no_code_of_text(name: str) -> None:
    text = source(name)
    assert text.startswith("// Owns ")
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
        r"|setHTML|srcdoc|\beval\(|new Function|setTimeout\(\s*[\"'`]|serviceWorker|javascript:"
    )
    assert not re.search(sinks, text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finds_what_it_names(name: str) -> None:
    text = source(name)
    for imported in re.findall(r'^import .*?from "(.+?)";', text, flags=re.MULTILINE | re.DOTALL):
        assert imported.startswith("./") and imported.removeprefix("./") in FILES
    document = source("index.html")
    for id_ in re.findall(r'\bbyId\("([^"]+)"\)', text):
        assert f'id="{id_}"' in document
    for symbol in re.findall(r'\bicon(?:Button)?\("([^"]+)"', text):
        assert f'id="icon-{symbol}"' in document


def test_every_script_is_used() -> None:
    used = {"main.js", "theme.js"}
    for name in SCRIPTS:
        used |= set(re.findall(r'from "\./([^"]+)"', source(name)))
    assert {name for name in FILES if name.endswith(".js")} == used


def test_files_of_others_are_unchanged() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", source("vendor/README.md"), re.MULTILINE
    )
    assert len(rows) == len([name for name in FILES if name.startswith("vendor/")]) == 1
    for name, digest in rows:
        assert hashlib.sha256((PAGE / "vendor" / name).read_bytes()).hexdigest() == digest
    assert "MIT license" in source("vendor/marked.LICENSE.txt")


def test_the_manifest_makes_the_page_installable() -> None:
    manifest = json.loads(source("manifest.webmanifest"))
    assert manifest["name"] and manifest["short_name"] and manifest["display"] == "standalone"
    # Relative to the manifest: the page may lie below a proxy's prefix.
    assert manifest["start_url"] == manifest["scope"] == "../"
    purposes = set()
    for icon in manifest["icons"]:
        assert icon["src"] in FILES and icon["type"] == MEDIA_TYPES[Path(icon["src"]).suffix]
        purposes.add((icon["purpose"], icon["sizes"]))
        if icon["type"] == "image/png":
            with Image.open(PAGE / icon["src"]) as image:
                assert "x".join(map(str, image.size)) == icon["sizes"]
    assert {("any", "192x192"), ("any", "512x512"), ("maskable", "512x512")} <= purposes
