"""Results in a store: whole or not there, shared, and never believed without their digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.compile.jobs.errors import DamagedError
from mvlm.compile.jobs.messages import ARTIFACT, WEIGHTS
from mvlm.compile.jobs.store import Store
from mvlm.compile.jobs.store.results import MAX_RESULT_BYTES, parse_artifact, parse_weights
from mvlm.runtime.artifact import read_manifest, verify_files
from mvlm.runtime.errors import ArtifactError, UsageError
from tests.compile.jobs.fakes import add_fake, fake_step, key_of

A, W = fake_step(ARTIFACT, "a"), fake_step(WEIGHTS, "w")


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    for step in (A, W):
        add_fake(store, step, tmp_path / step.name)
    return store


def path_of(store: Store, name: str) -> Path:
    assert store.files.folder is not None
    return store.files.folder / name


def blob(store: Store, digest: str) -> Path:
    return path_of(store, f"blobs/sha256/{digest}")


def replace(path: Path, data: bytes) -> None:
    """Put other bytes in a file's place: those in the store may be shared and are read-only."""
    path.unlink()
    path.write_bytes(data)


def test_store_finds_added_results(filled: Store) -> None:
    artifact, weights = filled.artifact(A.key), filled.weights(W.key)
    assert artifact is not None and weights is not None
    assert (artifact.name, weights.name) == ("a", "w")
    assert filled.find_complete(ARTIFACT, A.key, verify=True) == artifact
    assert filled.find_complete(WEIGHTS, W.key, verify=True) == weights
    assert filled.artifact(key_of("b")) is None
    assert filled.find_complete(ARTIFACT, key_of("b")) is None


def test_store_add_is_idempotent(filled: Store, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("store/[ab]*/**/*")}
    add_fake(filled, A, tmp_path / "again")
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("store/[ab]*/**/*")}
    assert {p: t for p, t in before.items() if p.is_file()} == {
        p: t for p, t in after.items() if p.is_file()
    }


def test_store_fetch(filled: Store, tmp_path: Path) -> None:
    artifact = filled.artifact(A.key)
    assert artifact is not None
    for _ in range(2):  # the second replaces the first
        filled.fetch(artifact, tmp_path / "out")
    assert read_manifest(tmp_path / "out") == artifact.manifest
    verify_files(tmp_path / "out", artifact.manifest)
    # It is the user's own: what he does to it is not done to the store.
    (tmp_path / "out/chat.json").write_text("mine")
    assert filled.find_complete(ARTIFACT, A.key, verify=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one").write_text("")
    with pytest.raises(UsageError, match="is in the way"):
        filled.fetch(artifact, tmp_path / "photos")


def test_a_damaged_blob(filled: Store, tmp_path: Path) -> None:
    """It is refused, taken away, and its result is made again."""
    artifact = filled.artifact(A.key)
    assert artifact is not None
    entry = artifact.files[0]
    replace(blob(filled, entry.sha256), b"x" * entry.size)
    with pytest.raises(DamagedError, match=rf"{entry.path} is damaged.*Run the matrix again"):
        filled.fetch(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not blob(filled, entry.sha256).exists()
    assert filled.find_complete(ARTIFACT, A.key) is None
    assert filled.artifact(A.key) is None
    add_fake(filled, A, tmp_path / "again")
    assert filled.find_complete(ARTIFACT, A.key, verify=True) is not None


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 10_000])
def test_a_blob_of_another_size(filled: Store, data: bytes) -> None:
    weights = filled.weights(W.key)
    assert weights is not None
    replace(blob(filled, weights.files[0].sha256), data)
    assert filled.find_complete(WEIGHTS, W.key) is None


def test_verify_finds_changed_blobs_of_the_same_size(filled: Store) -> None:
    weights = filled.weights(W.key)
    assert weights is not None
    replace(blob(filled, weights.files[0].sha256), b"x" * weights.files[0].size)
    assert filled.find_complete(WEIGHTS, W.key) is not None
    assert filled.find_complete(WEIGHTS, W.key, verify=True) is None


def test_a_blob_that_is_a_link(filled: Store, tmp_path: Path) -> None:
    artifact = filled.artifact(A.key)
    assert artifact is not None
    path = blob(filled, artifact.files[0].sha256)
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    assert filled.find_complete(ARTIFACT, A.key) is None


# --- untrusted documents --------------------------------------------------------------------------


def edited(store: Store, kind: str, **changes: Any) -> bytes:
    found = store.artifact(A.key) if kind == ARTIFACT else store.weights(W.key)
    assert found is not None
    return json.dumps(json.loads(found.to_bytes()) | changes).encode()


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", ".", "a\\b", "manifest.json"]
)
def test_result_file_paths_outside_are_refused(filled: Store, path: str) -> None:
    files = [{"path": path, "size": 1, "sha256": "0" * 64}]
    data = edited(filled, WEIGHTS, files=files)
    with pytest.raises(ArtifactError):
        parse_weights(data, W.key, "here")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 3},
        {"schema": "1"},
        {"key": "0" * 64},
        {"files": []},
        {"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": 1, "sha256": "../x"}]},
        {"files": [{"path": "a", "size": 1, "sha256": "0" * 64}] * 2},
        {"files": [{"path": f"{i}", "size": 1, "sha256": "0" * 64} for i in range(2_000)]},
        {"checkpoint": 3},
        {"provenance": []},
    ],
)
def test_malformed_weights_results(filled: Store, changes: dict[str, Any]) -> None:
    data = edited(filled, WEIGHTS, **changes)
    with pytest.raises(ArtifactError):
        parse_weights(data, W.key, "here")


def test_results_of_another_version_are_refused_with_what_to_do(filled: Store) -> None:
    for kind, parse, key in ((WEIGHTS, parse_weights, W.key), (ARTIFACT, parse_artifact, A.key)):
        with pytest.raises(ArtifactError, match=r"another version.*schema 2.*Run the matrix again"):
            parse(edited(filled, kind, schema=1), key, "here")


def test_malformed_artifact_results(filled: Store) -> None:
    found = filled.artifact(A.key)
    assert found is not None
    manifest = found.manifest.to_bytes().decode()
    for changed in (
        manifest.replace("chat.json", "../chat.json"),
        manifest.replace("host", "hose"),  # and the digest is another one's
        "{}",
        "[" * 10_000,
        "x" * (1 << 20),
    ):
        with pytest.raises(ArtifactError):
            parse_artifact(edited(filled, ARTIFACT, manifest=changed), A.key, "here")


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["schema", "key", "name", "files", "manifest", "provenance", "checkpoint"]
                ),
                inner,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_result_content_is_refused(data: bytes) -> None:
    for parse in (parse_artifact, parse_weights):
        with pytest.raises(ArtifactError):
            parse(data, A.key, "here")


@pytest.mark.parametrize("data", [b"{", b"x" * (MAX_RESULT_BYTES + 10)])
def test_damaged_result_counts_as_missing(filled: Store, data: bytes) -> None:
    path_of(filled, f"artifacts/{A.key}.json").write_bytes(data)
    with pytest.raises(ArtifactError):
        filled.artifact(A.key)
    assert filled.find_complete(ARTIFACT, A.key) is None
    assert filled.artifact(A.key) is None
