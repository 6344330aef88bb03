"""An artifact is loaded intact and on its machine, or refused before its code is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mvlm.runtime.model
from mvlm.runtime.artifact import layout, map_weights, read_manifest, verify_artifact, verify_files
from mvlm.runtime.artifact.json_object import parse_json_object
from mvlm.runtime.artifact.manifest import Manifest
from mvlm.runtime.artifact.verify import TVM_VERSION, check_abi, check_machine, check_memory
from mvlm.runtime.errors import ArtifactError
from mvlm.runtime.machine import Machine, read_machine
from mvlm.runtime.model import Model
from tests.artifacts import ArtifactCache

FILES = (*layout.REQUIRED_FILES, layout.MANIFEST)


@pytest.fixture
def artifact(artifact_cache: ArtifactCache, tmp_path: Path) -> Path:
    """A copy of its own, which a test may damage."""
    return Path(shutil.copytree(artifact_cache.artifact("text"), tmp_path / "artifact"))


@pytest.fixture
def manifest(artifact_cache: ArtifactCache) -> Manifest:
    return read_manifest(artifact_cache.artifact("text"))


@pytest.fixture(autouse=True)
def no_library_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        pytest.fail("a library was loaded")

    monkeypatch.setattr(mvlm.runtime.model, "load_functions", fail)


def refuse(folder: Path, match: str | None = None) -> ArtifactError:
    """Assert that nothing of an artifact is loaded; return the reason."""
    with pytest.raises(ArtifactError, match=match) as caught:
        Model(folder)
    return caught.value


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


# --- a whole one --------------------------------------------------------------------------------


def test_what_the_compiler_writes_is_accepted(artifact_cache: ArtifactCache) -> None:
    folder = artifact_cache.artifact("text")
    manifest = verify_artifact(folder)
    paths = {entry.path for entry in manifest.files}
    weights = {path for path in paths if path.startswith("weights/") and path.endswith(".bin")}
    assert paths == {*layout.REQUIRED_FILES, *weights}
    assert weights == {
        f"weights/{name}.bin"
        for name in (
            "embedding",
            "head",
            "layer-00-attention",
            "layer-00-mlp",
            "layer-01-attention",
            "layer-01-mlp",
        )
    }
    for entry in manifest.files:
        data = (folder / entry.path).read_bytes()
        assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest.model["family"] == "mobilellama"
    parts = dict.fromkeys(("language", "embedding", "head", "vision"), "q0f32")
    assert manifest.quantization == parts | {"cache": "float32"}
    device = manifest.target.device
    assert (device.kind, device.requires) == ("cpu", {"cpu": device.cpu})
    assert set(device.cpu.features) <= read_machine().features
    assert manifest.abi.load_order == (layout.RUNTIME_LIBRARY,)
    assert manifest.provenance.keys() == {"checkpoint", "source", "toolchain", "tuning"}


def test_digest_is_of_the_contents_alone(artifact: Path, manifest: Manifest) -> None:
    assert manifest.digest == hashlib.sha256(manifest.canonical()).hexdigest()
    assert read_manifest(artifact) == manifest
    assert read_manifest(artifact).digest == manifest.digest
    # Keys in another order are the same contents; another value is not.
    shuffled = replace(manifest, model=dict(reversed(manifest.model.items())))
    assert shuffled.digest == manifest.digest
    assert replace(manifest, evidence={"measured": 1}).digest != manifest.digest


def test_file_is_the_canonical_form_with_its_digest(artifact: Path, manifest: Manifest) -> None:
    data = (artifact / layout.MANIFEST).read_bytes()
    assert data == manifest.to_bytes()
    values = json.loads(data)
    assert values.pop("digest") == manifest.digest
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical.encode() == manifest.canonical()
    assert values == manifest.to_json()


def test_progress_counts_every_byte(artifact: Path, manifest: Manifest) -> None:
    seen: list[int] = []
    verify_files(artifact, manifest, seen.append)
    assert sum(seen) == sum(entry.size for entry in manifest.files)


def test_a_moved_or_linked_artifact_is_accepted(artifact: Path, tmp_path: Path) -> None:
    moved = artifact.rename(tmp_path / "b c")
    (tmp_path / "link").symlink_to(moved)
    assert verify_artifact(tmp_path / "link") == verify_artifact(moved)


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_detected_in_every_file(artifact: Path, name: str) -> None:
    path = artifact / name
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for position in {0, len(whole) - 1, *random.integers(0, len(whole), 5).tolist()}:
        flip(path, position, int(random.integers(8)))
        error = refuse(artifact)
        assert name in str(error)
        assert error.fix or name == layout.MANIFEST
        path.write_bytes(whole)
    verify_artifact(artifact)


def test_a_flipped_bit_of_the_manifest_is_detected(artifact: Path) -> None:
    """Its damage may leave valid JSON: a digit in a size, a letter in a name."""
    path = artifact / layout.MANIFEST
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            read_manifest(artifact)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    refuse(artifact, "is missing|is not an artifact")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(artifact: Path, name: str) -> None:
    path = artifact / name
    for size in (path.stat().st_size - 1, 0):
        os.truncate(path, size)
        refuse(artifact, "wrong size|not valid JSON|damaged")


@pytest.mark.parametrize("name", FILES)
def test_a_longer_file(artifact: Path, name: str) -> None:
    with (artifact / name).open("ab") as file:
        file.write(b"\n")
    refuse(artifact, "wrong size|damaged")


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_place_of_a_file(artifact: Path, tmp_path: Path, name: str) -> None:
    """Even to the right bytes: who can change them later is not known."""
    path = artifact / name
    target = path.rename(tmp_path / "elsewhere")
    path.symlink_to(target)
    refuse(artifact)


@pytest.mark.parametrize("name", ["lib", "weights"])
def test_a_link_in_the_place_of_a_folder(artifact: Path, tmp_path: Path, name: str) -> None:
    target = (artifact / name).rename(tmp_path / "elsewhere")
    (artifact / name).symlink_to(target)
    refuse(artifact, "not in the manifest")


@pytest.mark.parametrize("name", FILES)
def test_a_folder_or_a_pipe_in_the_place_of_a_file(artifact: Path, name: str) -> None:
    path = artifact / name
    path.unlink()
    path.mkdir()
    refuse(artifact)
    path.rmdir()
    os.mkfifo(path)
    refuse(artifact)


@pytest.mark.parametrize("name", ["extra", "lib/extra.so", "new/deep/extra", ".hidden"])
def test_an_extra_file(artifact: Path, name: str) -> None:
    (artifact / name).parent.mkdir(parents=True, exist_ok=True)
    (artifact / name).write_text("")
    refuse(artifact, "not in the manifest")


def test_an_extra_link(artifact: Path) -> None:
    (artifact / "loop").symlink_to(artifact)
    refuse(artifact, "not in the manifest")


@pytest.mark.parametrize("folder", ["nowhere", "empty", "a file"])
def test_no_artifact_at_all(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text("{}")
    refuse(tmp_path / folder, "is not an artifact.*mvlm compile")


# --- malformed manifests ------------------------------------------------------------------------


def write_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and write its digest anew, as an attacker would."""
    path = folder / layout.MANIFEST
    values = json.loads(path.read_bytes())
    del values["digest"]
    change(values)

    def canonical() -> bytes:
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode(errors="surrogatepass")

    values["digest"] = hashlib.sha256(canonical()).hexdigest()
    path.write_bytes(canonical())


def test_a_rewritten_digest_is_accepted(artifact: Path) -> None:
    write_manifest(artifact, lambda values: values["model"].update(name="another"))
    assert verify_artifact(artifact).model["name"] == "another"


PATHS = [
    "/etc/passwd",
    "../outside",
    "lib/../../outside",
    "lib/../lib/model.so",
    "./chat.json",
    "lib//model.so",
    "lib/",
    "",
    ".",
    "..",
    "a\0b",
    "..\\outside",
    "\ud800",
    "a" * 100_000,
    "manifest.json",
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path)[:20])
def test_paths_that_leave_the_artifact_are_refused(
    artifact: Path, tmp_path: Path, path: str
) -> None:
    (tmp_path / "outside").write_text("")
    entry = {"path": path, "size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    write_manifest(artifact, lambda values: values["files"].append(entry))
    refuse(artifact)


def set_value(*keys: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(values: Any) -> None:
        *outer, last = keys
        for key in outer:
            values = values[key]
        values[last] = value

    return change


def set_library(name: str, digest: object) -> Callable[[dict[str, Any]], None]:
    return set_value("abi", "runtime_libraries", name, value=digest)


def add_library(name: str) -> Callable[[dict[str, Any]], None]:
    """Name one more runtime library, an empty file."""
    digest = hashlib.sha256(b"").hexdigest()

    def change(values: dict[str, Any]) -> None:
        values["files"].append({"path": f"lib/{name}", "size": 0, "sha256": digest})
        set_library(name, digest)(values)

    return change


def cpu_of(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = values["target"]["device"]["requires"]["cpu"]
    return found


def remove(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda values: values.pop(key) and None


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


MALFORMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another schema": set_value("schema", value=1),
    "schema of text": set_value("schema", value="2"),
    "schema of bool": set_value("schema", value=True),
    "schema of float": set_value("schema", value=2.0),
    "size of bool": set_value("files", 0, "size", value=True),
    "size of float": set_value("files", 0, "size", value=1.5),
    "negative size": set_value("files", 0, "size", value=-1),
    "huge size": set_value("files", 0, "size", value=10**1000),
    "size of null": set_value("files", 0, "size", value=None),
    "short digest": set_value("files", 0, "sha256", value="ab"),
    "upper case digest": set_value("files", 0, "sha256", value="A" * 64),
    "digest with a newline": set_value("files", 0, "sha256", value="a" * 64 + "\n"),
    "no files": set_value("files", value=[]),
    "files of null": set_value("files", value=None),
    "files of text": set_value("files", value="lib/model.so"),
    "files of numbers": set_value("files", value=[1, 2]),
    "a file twice": lambda values: values["files"].append(dict(values["files"][0])),
    "too many files": lambda values: values["files"].extend(
        {"path": f"f{i}", "size": 0, "sha256": "0" * 64} for i in range(layout.MAX_FILES)
    ),
    "a required file unnamed": lambda values: values["files"].pop(),
    "another runtime library": set_library("libtvm_runtime.so", "0" * 64),
    "no runtime libraries": set_value("abi", "runtime_libraries", value={}),
    "runtime libraries of a list": set_value("abi", "runtime_libraries", value=[]),
    "a runtime library of null": set_library("libtvm_runtime.so", None),
    "a runtime library that is no file": set_library("libmvlm_parallel.so", "0" * 64),
    "a runtime library elsewhere": set_library("../libother.so", "0" * 64),
    "the model as a runtime library": set_library("model.so", "0" * 64),
    "many runtime libraries": lambda values: [
        add_library(f"lib{i}.so")(values) for i in range(layout.MAX_RUNTIME_LIBRARIES)
    ],
    "a library that the ABI does not name": lambda values: values["files"].append(
        {"path": "lib/libother.so", "size": 0, "sha256": "0" * 64}
    ),
    "TVM's runtime unnamed": lambda values: values["abi"]["runtime_libraries"].clear(),
    "abi of a list": set_value("abi", value=[]),
    "a device of text": set_value("target", "device", value="cpu"),
    "an unknown kind of device": set_value("target", "device", "kind", value="npu"),
    "a kind of device of null": set_value("target", "device", "kind", value=None),
    "requires nothing": set_value("target", "device", "requires", value={}),
    "requires an unknown kind": set_value("target", "device", "requires", "npu", value={}),
    "requires a CPU of null": set_value("target", "device", "requires", "cpu", value=None),
    "requires a CPU without features": lambda values: cpu_of(values).pop("features"),
    "an unknown key of a CPU": lambda values: cpu_of(values).update(sm=87),
    "features of numbers": lambda values: cpu_of(values).update(features=[1]),
    "features of text": lambda values: cpu_of(values).update(features="avx2"),
    "too many features": lambda values: cpu_of(values).update(features=["x"] * 300),
    "model of a list": set_value("model", value=[]),
    "model of null": set_value("model", value=None),
    "quantization without vision": set_value("quantization", value={"language": "q0f32"}),
    "layers of text": set_value("layers", value="q4a8"),
    "no layers": set_value("layers", value=[]),
    "a layer of text": set_value("layers", value=["q4a8"]),
    "a layer without down": set_value("layers", value=[{"attention": "q", "gate_up": "q"}]),
    "a layer of more": set_value(
        "layers", value=[{"attention": "q", "gate_up": "q", "down": "q", "up": "q"}]
    ),
    "bits of a number": set_value("quantization", "bits", value=4),
    "an unknown part": set_value("quantization", "tower", value="q0f32"),
    "an unknown key": set_value("surprise", value=1),
    "an unknown key within": set_value("target", "surprise", value=1),
    "nested deeply": set_value("provenance", value=nested(700)),
    "a lone surrogate": set_value("model", "name", value="\ud800"),
    **{f"no {key}": remove(key) for key in ("schema", "model", "target", "abi", "files")},
    **{f"no {key}": remove(key) for key in ("provenance", "evidence", "quantization")},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_manifests_are_refused(artifact: Path, name: str) -> None:
    write_manifest(artifact, MALFORMED[name])
    refuse(artifact)


RAW: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"hello",
    "a number": b"1",
    "a list": b"[]",
    "null": b"null",
    "not a number": b'{"schema": NaN}',
    "infinite": b'{"schema": 1e999}',
    "a very long number": b'{"schema": ' + b"9" * 5000 + b"}",
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "invalid UTF-8": b'{"schema": "\xff"}',
    "half a character": b'{"schema": "\xe2\x82"}',
    "UTF-16": '{"schema": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "a NUL": b"{}\0",
    "too large": b'{"schema": 1, "model": "' + b" " * (17 << 20) + b'"}',
    "two objects": b"{}{}",
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_manifest_are_refused(artifact: Path, name: str) -> None:
    (artifact / layout.MANIFEST).write_bytes(RAW[name])
    refuse(artifact)


@pytest.mark.parametrize("schema", [5, 6, 7, 8])
def test_an_artifact_of_an_older_schema_is_refused_with_the_way_out(
    artifact: Path, schema: int
) -> None:
    """Schema 8 had functions of one sequence, 7 named no layout of weights.

    6 had one digest of a runtime library, 5 `needs`.
    """
    path = artifact / layout.MANIFEST
    values = json.loads(path.read_bytes()) | {"schema": schema}
    if schema < 7:
        values["target"] |= {"device": "cpu", **values["target"]["device"]["requires"]["cpu"]}
        libraries = values["abi"].pop("runtime_libraries")
        values["abi"]["libtvm_runtime"] = libraries["libtvm_runtime.so"]
    if schema == 5:
        values["target"]["needs"] = values["target"].pop("requirements")
    path.write_text(json.dumps(values))
    found = f"expected schema 9, found schema {schema}. Compile the model again with this mvlm"
    refuse(artifact, found)


def test_a_further_runtime_library_is_loaded_after_tvms(artifact: Path) -> None:
    for name in ("libmvlm_parallel.so", "liba.so"):
        (artifact / "lib" / name).touch()
        write_manifest(artifact, add_library(name))
    order = (layout.RUNTIME_LIBRARY, "lib/liba.so", "lib/libmvlm_parallel.so")
    assert verify_artifact(artifact).abi.load_order == order
    (artifact / "lib" / "liba.so").write_bytes(b"damaged")
    refuse(artifact, r"lib/liba\.so has the wrong size")


def test_an_unknown_kind_of_device_is_refused_with_the_way_out(artifact: Path) -> None:
    device = {"kind": "npu", "requires": {"npu": {"tops": 45}}}
    write_manifest(artifact, set_value("target", "device", value=device))
    error = refuse(artifact, "target: device: .*does not know devices of that kind")
    assert (error.expected, error.found) == ("cpu", "'npu'")
    assert error.fix and "Install the mvlm that made the artifact" in error.fix


def test_a_duplicate_key_is_refused(artifact: Path) -> None:
    """Readers differ in which one counts."""
    path = artifact / layout.MANIFEST
    path.write_bytes(path.read_bytes().replace(b'{"abi"', b'{"schema":2,"abi"', 1))
    refuse(artifact, "is damaged")


@pytest.mark.parametrize("indent", [None, 1])
def test_a_manifest_that_is_not_canonical_is_refused(artifact: Path, indent: int | None) -> None:
    path = artifact / layout.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=indent))
    refuse(artifact, "is damaged.*canonical")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_mutated_manifests_raise_artifact_errors_only(
    data: st.DataObject, artifact_cache: ArtifactCache, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = json.loads((artifact_cache.artifact("text") / layout.MANIFEST).read_bytes())
    container: Any = values
    while True:
        key = data.draw(
            st.sampled_from(sorted(container))
            if isinstance(container, dict)
            else st.integers(0, len(container) - 1)
        )
        inner = container[key]
        if not (isinstance(inner, dict | list) and inner) or data.draw(st.booleans()):
            break
        container = inner
    container[key] = data.draw(json_values)
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / layout.MANIFEST).write_text(json.dumps(values))
    write_manifest(folder, lambda values: None) if "digest" in values else None
    # The files are not there, so even a manifest that is right is refused in the end.
    with pytest.raises(ArtifactError):
        verify_artifact(folder)
    shutil.rmtree(folder)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_raise_artifact_errors_only(data: bytes) -> None:
    try:
        assert isinstance(parse_json_object(data, "x").values, dict)
    except ArtifactError as error:
        assert "x" in str(error)


# --- weights ------------------------------------------------------------------------------------


def write_index(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    path = folder / layout.WEIGHTS_INDEX
    values = json.loads(path.read_bytes())
    change(values["tensors"])
    path.write_text(json.dumps(values))


def test_weights_are_mapped_aligned_and_in_order(artifact: Path) -> None:
    names = [
        t["name"] for t in json.loads((artifact / layout.WEIGHTS_INDEX).read_bytes())["tensors"]
    ]
    arrays = map_weights(artifact)
    assert len(arrays) == len(names) == len(set(names))
    for array in arrays:
        assert array.ctypes.data % layout.WEIGHT_ALIGNMENT == 0
        assert np.isfinite(array).all()


BAD_TENSORS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "no tensors": lambda tensors: tensors.clear(),
    "a name twice": lambda tensors: tensors[1].update(name=tensors[0]["name"]),
    "an unknown dtype": lambda tensors: tensors[0].update(dtype="object"),
    "a dtype with a shape": lambda tensors: tensors[0].update(dtype="(1000,)float32"),
    "no shape": lambda tensors: tensors[0].update(shape=[]),
    "an extent of zero": lambda tensors: tensors[0].update(shape=[0]),
    "a negative extent": lambda tensors: tensors[0].update(shape=[-1, -8]),
    "an extent of bool": lambda tensors: tensors[0].update(shape=[True]),
    "an extent of float": lambda tensors: tensors[0].update(shape=[8.0]),
    "a giant shape": lambda tensors: tensors[0].update(shape=[2**40, 2**40]),
    "a shape past 64 bits": lambda tensors: tensors[0].update(shape=[2**62, 4]),
    "many extents": lambda tensors: tensors[0].update(shape=[1] * 100),
    "no file": lambda tensors: tensors[0].pop("file"),
    "a file elsewhere": lambda tensors: tensors[0].update(file="../manifest.json"),
    "an absolute file": lambda tensors: tensors[0].update(file="/etc/passwd.bin"),
    "a file that is not there": lambda tensors: tensors[0].update(file="other.bin"),
    "a file of null": lambda tensors: tensors[0].update(file=None),
    "an offset past the end": lambda tensors: tensors[0].update(offset=1 << 40),
    "an offset past 64 bits": lambda tensors: tensors[0].update(offset=1 << 70),
    "a negative offset": lambda tensors: tensors[0].update(offset=-64),
    "an offset that is not aligned": lambda tensors: tensors[0].update(offset=4),
    "an offset of text": lambda tensors: tensors[0].update(offset="0"),
    "tensors of null": lambda tensors: tensors.__setitem__(0, None),
    "an end just past the file": lambda tensors: tensors[-1].update(shape=[1 << 22]),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_weight_indexes(artifact: Path, name: str) -> None:
    write_index(artifact, BAD_TENSORS[name])
    with pytest.raises(ArtifactError, match=r"index\.json|weights/\w"):
        map_weights(artifact)


def test_overlapping_tensors_are_refused(artifact: Path) -> None:
    def overlap(tensors: list[dict[str, Any]]) -> None:
        tensors[1]["offset"] = tensors[0]["offset"]

        tensors[1]["file"] = tensors[0]["file"]

    write_index(artifact, overlap)
    with pytest.raises(ArtifactError, match="overlap"):
        map_weights(artifact)


def test_an_empty_weights_file(artifact: Path) -> None:
    os.truncate(artifact / layout.WEIGHTS / "head.bin", 0)
    with pytest.raises(ArtifactError, match="outside the file"):
        map_weights(artifact)


# --- another machine, another version -----------------------------------------------------------


def machine(architecture: str, *features: str, **others: Any) -> Machine:
    system = {"libc": "glibc 2.36"} | others
    return Machine(architecture, "A CPU", frozenset(features), 1, 1 << 30, **system)


def with_features(manifest: Manifest, *features: str) -> Manifest:
    cpu = replace(manifest.target.device.cpu, features=features)
    device = replace(manifest.target.device, requires={"cpu": cpu})
    return replace(manifest, target=replace(manifest.target, device=device))


def test_another_architecture_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ArtifactError) as caught:
        check_machine(manifest, machine("riscv64"))
    architecture = manifest.target.device.cpu.architecture
    words = ("another architecture", "riscv64", architecture, "mvlm compile")
    assert all(word in str(caught.value) for word in words)


def test_absent_cpu_features_are_refused(manifest: Manifest) -> None:
    features = ("avx2", "fma", "ssse3")
    wanting, architecture = with_features(manifest, *features), read_machine().architecture
    with pytest.raises(ArtifactError, match=r"lacks: expected fma, found A CPU without it\."):
        check_machine(wanting, machine(architecture, "ssse3", "avx2"))
    with pytest.raises(ArtifactError, match=r"expected avx2, fma, found A CPU without them\."):
        check_machine(wanting, machine(architecture, "ssse3"))
    check_machine(wanting, machine(architecture, *features))


def test_a_feature_that_is_not_known_here(manifest: Manifest) -> None:
    """A later mvlm may know more features: what is not known is not there."""
    with pytest.raises(ArtifactError, match="avx1024"):
        check_machine(with_features(manifest, "avx1024"), read_machine())


@pytest.mark.parametrize(
    ("requirements", "here", "words"),
    [
        ({"platform": "android"}, {}, "another system: expected linux.*found android"),
        ({}, {"platform": "android", "libc": "api 33"}, "expected android.*--platform android"),
        ({"libc": "2.40"}, {}, r"too old.*expected glibc 2\.40 or newer, found glibc 2\.36"),
        ({"libc": "2.4"}, {"libc": "glibc 2.3"}, r"found glibc 2\.3"),
        ({}, {"libc": ""}, "expected glibc .*found another C library"),
        ({"page_bytes": 4096}, {"page_bytes": 16384}, "expected 16384 bytes a page, found 4096"),
        (
            {"platform": "android", "libc": "31"},
            {"platform": "android", "libc": "api 30"},
            "expected api 31 or newer, found api 30",
        ),
    ],
)
def test_requirements_of_another_system_are_refused(
    manifest: Manifest, requirements: dict[str, Any], here: dict[str, Any], words: str
) -> None:
    target = manifest.target
    described = replace(target, requirements=replace(target.requirements, libc="2.28"))
    described = replace(described, requirements=replace(described.requirements, **requirements))
    with pytest.raises(ArtifactError, match=words):
        check_machine(
            replace(manifest, target=described),
            machine(target.device.cpu.architecture, *target.device.cpu.features, **here),
        )


@pytest.mark.parametrize(
    ("needed", "is_served"), [("2.9", True), ("2.36", True), ("2.37", False), ("2.100", False)]
)
def test_versions_are_compared_by_number(manifest: Manifest, needed: str, is_served: bool) -> None:
    """As text, 2.9 would be newer than 2.36, and 2.100 older."""
    requirements = replace(manifest.target.requirements, libc=needed)
    target = replace(manifest.target, requirements=requirements)
    cpu = target.device.cpu
    here = machine(cpu.architecture, *cpu.features, libc="glibc 2.36")
    refused = pytest.raises(ArtifactError, match=f"expected glibc {needed} or newer")
    with nullcontext() if is_served else refused:
        check_machine(replace(manifest, target=target), here)


def test_requirements_of_the_libraries_are_in_the_manifest(manifest: Manifest) -> None:
    requirements = manifest.target.requirements
    assert (requirements.platform, requirements.page_bytes >= 4096) == ("linux", True)
    assert requirements.libc.startswith("2.")
    weights = sum(entry.size for entry in manifest.files if entry.path.endswith(".bin"))
    assert weights < requirements.memory_bytes < weights + (1 << 30)


def test_too_little_memory_is_refused(manifest: Manifest) -> None:
    needed = manifest.target.requirements.memory_bytes
    check_memory(manifest, needed)
    check_memory(manifest, None)
    with pytest.raises(ArtifactError, match=r"too little memory.*expected .* GB free.*found 0\.00"):
        check_memory(manifest, 1000)


def test_another_tvm_version_is_refused(manifest: Manifest) -> None:
    old = replace(manifest, abi=replace(manifest.abi, tvm="0.26.0"))
    with pytest.raises(ArtifactError, match=rf"another TVM.*{TVM_VERSION}.*found 0\.26\.0"):
        check_abi(old)


def test_another_tvm_ffi_version_is_refused(manifest: Manifest) -> None:
    installed = metadata.version("apache-tvm-ffi")
    old = replace(manifest, abi=replace(manifest.abi, tvm_ffi="0.1.13"))
    with pytest.raises(ArtifactError) as caught:
        check_abi(old)
    words = ("expected 0.1.13", installed, "pip install apache-tvm-ffi==0.1.13")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: cpu_of(values).update(architecture="riscv64"),
        lambda values: cpu_of(values).update(features=["avx1024"]),
        set_value("abi", "tvm", value="0.26.0"),
        set_value("abi", "tvm_ffi", value="0.1.13"),
    ],
    ids=["architecture", "features", "tvm", "tvm-ffi"],
)
def test_an_artifact_for_another_machine_is_refused_before_its_files_are_read(
    artifact: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    write_manifest(artifact, change)
    shutil.rmtree(artifact / "lib")
    refuse(artifact, "architecture|features|another TVM|apache-tvm-ffi")
