"""Paths as people write them, for every verb: `~`, `file://`, and URLs that are no files."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mvlm.cli.app import VERBS, build_app
from mvlm.cli.shared.user_path import user_path
from mvlm.runtime.errors import UsageError
from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm

IMAGE = "an image #1 50%.png"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an image in it, and another folder to work in."""
    folder = tmp_path / "home"
    folder.mkdir()
    Image.effect_noise((50, 40), 90).convert("RGB").save(folder / IMAGE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_user_path_expands_the_home_alone(home: Path) -> None:
    assert user_path("~/x.png") == home / "x.png"
    assert user_path("~") == home
    assert user_path("a/~/b") == Path("a/~/b")
    assert user_path("~root/x") == Path(os.path.expanduser("~root")) / "x"  # noqa: PTH111
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_user_path_prefers_an_existing_name(home: Path) -> None:
    for name in ("~", "~x", "file:", "https:"):
        Path(name).mkdir()
        assert user_path(name) == Path(name)
    Path("https:/a").mkdir()
    assert user_path("https://a") == Path("https:/a")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a/b.png", "/a/b.png"),
        ("file:/a/b.png", "/a/b.png"),
        ("FILE://localhost/a/b.png", "/a/b.png"),
        ("file:///a%20b/%C3%A9%23%3F%25.png", "/a b/é#?%.png"),
        ("file:///%D9%85%DB%8C%E2%80%8C/é", "/\u0645\u06cc\u200c/é"),
        ("file:///a%FFb", "/a\udcffb"),
        ("file:///a+b", "/a+b"),
        ("file:////a", "//a"),
    ],
)
def test_user_path_file_urls(url: str, path: str) -> None:
    assert str(user_path(url)) == str(Path(path))


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_every_path_is_read_back_from_its_url(name: str) -> None:
    path = Path("/no such folder") / name
    assert user_path(path.as_uri()) == path


@pytest.mark.parametrize(
    "url",
    [
        "file://server/share/a.png",
        "file://",
        "file:a.png",
        "file:///a.png?x=1",
        "file:///a.png#x",
        "file:///a%00b",
        "file://[half/a",
    ],
)
def test_user_path_refuses_file_urls_of_other_machines(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        user_path(url, "--image")
    assert caught.value.found == url
    assert "--image takes a path on this machine: expected a path, or file:///" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://x.org/a//b?c=1&d", "https://x.org/a b.png", "ftp://x/y", "s3://b/k", "hf://a/b"]
)
def test_user_path_refuses_other_urls_with_a_download_command(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        user_path(url, "--image")
    assert caught.value.found == f"the URL {url}"
    assert caught.value.exit_code == 2
    assert caught.value.fix is not None
    if url.startswith("http"):
        assert caught.value.fix == f"Download it first: `curl -L -O '{url}'`."
    with pytest.raises(UsageError) as caught:
        user_path(url, "--output", is_written=True)
    assert caught.value.fix is None


def test_urls_that_hold_a_file_are_cut_short() -> None:
    with pytest.raises(UsageError) as caught:
        user_path("data:image/png;base64," + "A" * 100_000)
    assert len(str(caught.value)) < 500


def test_a_model_of_the_hub_has_a_command_of_its_own() -> None:
    with pytest.raises(UsageError, match=r"`hf download mtgv/MobileVLM-1\.7B --local-dir"):
        user_path("https://huggingface.co/mtgv/MobileVLM-1.7B")


def test_user_path_empty() -> None:
    with pytest.raises(UsageError, match="--image: expected a path, found an empty text"):
        user_path("", "--image")


# --- the verbs ----------------------------------------------------------------------------------


def verbs() -> list[tuple[str, Any]]:
    """Every verb with its function; of a group, those in it."""
    found = []
    for name in VERBS:
        module = import_module(f"mvlm.cli.{name.replace('-', '_')}")
        for inner in getattr(module, "VERBS", [None]):
            each = import_module(f"{module.__name__}.{inner}") if inner else module
            found.append((f"{name} {inner}" if inner else name, each.command))
    return found


def path_parameters() -> list[tuple[str, str, Any]]:
    """The verb, name and typer's description of every parameter that holds a path."""
    build_app()
    found = []
    for verb, command in verbs():
        for name, hint in get_type_hints(command, include_extras=True).items():
            if get_origin(hint) is Annotated and "Path" in str(get_args(hint)[0]):
                found.append((verb, name, get_args(hint)[1]))
    return found


def test_every_path_parameter_is_a_user_path() -> None:
    found = path_parameters()
    assert len(found) > 30
    for verb, name, parameter in found:
        assert parameter.parser is not None, f"{verb}: {name}"
        with pytest.raises(UsageError, match=r"the URL https://x\.org/y"):
            parameter.parser("https://x.org/y")


@pytest.mark.parametrize("verb", ["inspect", "verify", "bench", "package", "compile"])
def test_a_url_in_place_of_a_folder(verb: str) -> None:
    result = mvlm(verb, "https://x.org/model", "--json")
    assert result.exit_code == 2
    assert "found the URL https://x.org/model. Download it first" in result.stderr
    assert result.json["error"]["found"] == "the URL https://x.org/model"


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "~/missing"),
        ("chat", "x", "--vision-tower=~/missing", "--prompt=a", "--dump=~/missing/a.npz"),
        ("compile", "~/missing"),
        ("targets", "~/missing.toml"),
        ("compile", "x", "--target=~/missing.toml"),
        ("jobs", "run", "~/missing"),
        ("jobs", "status", "--store=~/missing"),
        ("logs", "show", "~/missing"),
        ("bench", "--from-report=~/missing"),
        ("device", "serve", "~/missing"),
    ],
)
def test_a_home_is_expanded_for_every_verb(home: Path, arguments: tuple[str, ...]) -> None:
    result = mvlm(*arguments)
    assert result.exit_code in (1, 2)
    assert f"{home}/missing" in result.stderr
    assert "~" not in result.stderr


def test_images_are_found_in_every_spelling(artifact_cache: ArtifactCache, home: Path) -> None:
    asked = ("chat", artifact_cache.artifact("ldpnet"), "--max-tokens=4")
    expected = mvlm(*asked, "--prompt=What?", f"--image={home / IMAGE}")
    assert (expected.exit_code, expected.stderr) == (0, "")
    url = (home / IMAGE).as_uri()
    for spelling in (f"~/{IMAGE}", url):
        assert mvlm(*asked, "--prompt=What?", f"--image={spelling}") == expected
        conversed = mvlm(*asked, "--lines", stdin=f"/image {spelling}\nWhat?\n")
        assert (conversed.exit_code, conversed.stdout) == (0, expected.stdout)
        assert "error" not in conversed.stderr
    refused = mvlm(*asked, "--lines", stdin="/image https://x.org/a.png\nWhat?\n")
    assert refused.exit_code == 0
    assert refused.stderr.startswith(
        "error: /image takes a path on this machine: expected a file or folder, "
        "found the URL https://x.org/a.png. Download it first: `curl -L -O "
    )
