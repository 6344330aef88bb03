"""How ik_llama.cpp is driven, with a library that only records; itself in `test_bench_peers`."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mvlm.bench.peers import ik_llamacpp
from mvlm.bench.peers.ik_llamacpp import IkLlamaCpp, unused_instructions
from mvlm.bench.peers.runner import Setup
from mvlm.runtime.errors import MvlmError
from tests.artifacts import ArtifactCache

VOCABULARY = 10
SETUP = Setup({"model": "model.gguf"}, 2, 512, VOCABULARY, 1, None, False)
SYSTEM = "AVX = 1 | AVX_VNNI = 0 | AVX2 = 1 | AVX512 = 0 | AVX512_VNNI = 0 | FMA = 1 | "


class FakeApi:
    """The bindings' module over a library whose likeliest token is the number of decoded ones."""

    llama_token = ctypes.c_int32

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[int]]] = []
        self.clears = self.status = 0
        self.model: int | None = 1
        self.context_parameters = SimpleNamespace(n_batch=2048, n_ubatch=512)
        self._lib = SimpleNamespace(
            llama_log_set=self._log_set,
            llama_print_system_info=SYSTEM.encode,
            llama_model_size=lambda model: 1_000,
            llama_get_model_tensor=lambda model, name: self.tensors.get(name),
            ggml_nbytes=lambda tensor: tensor,
        )
        # A tensor is its size.
        self.tensors = {b"token_embd.weight": 200, b"output.weight": 300}
        self.say: Callable[[int, bytes, None], None]

    def _log_set(self, callback: ctypes.c_void_p, data: None) -> None:
        assert callback.value is not None
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.say = kind(callback.value)

    def llama_backend_init(self) -> None: ...

    def llama_model_default_params(self) -> object:
        return object()

    def llama_model_load_from_file(self, path: bytes, parameters: object) -> int | None:
        self.say(2, b"llama_model_loader: - type iq4_ks:  145 tensors\n", None)
        self.say(1, b"debug: flash_attn\n", None)
        return self.model

    def llama_context_default_params(self) -> SimpleNamespace:
        return self.context_parameters

    def llama_init_from_model(self, model: int, parameters: object) -> int:
        return 2

    def llama_batch(self, **fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**fields)

    def llama_decode(self, context: int, batch: SimpleNamespace) -> int:
        self.batches.append((batch.all_pos_0, list(batch.token)))
        return self.status

    def llama_kv_cache_clear(self, context: int) -> None:
        self.clears += 1

    def llama_get_logits_ith(self, context: int, index: int) -> Any:
        logits = np.eye(VOCABULARY, dtype=np.float32)[len(self.batches)]
        return (ctypes.c_float * VOCABULARY)(*logits)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    api = FakeApi()
    monkeypatch.setattr(ik_llamacpp, "_bindings", lambda: api)
    monkeypatch.setattr(ik_llamacpp.metadata, "version", lambda name: "0.1.5")
    return api


def test_ik_llamacpp_decodes_after_the_prompt(api: FakeApi) -> None:
    runner = IkLlamaCpp(SETUP)
    runner.prefill([1, 7, 8])
    runner.decode()
    runner.decode()
    assert api.batches == [(0, [1, 7, 8]), (3, [1]), (4, [2])]
    assert api.clears == 1
    runner.prefill([1, 9])
    assert api.batches[-1] == (0, [1, 9]) and api.clears == 2


def test_ik_llamacpp_context_has_the_asked_size_and_threads(api: FakeApi) -> None:
    IkLlamaCpp(SETUP)
    asked = vars(api.context_parameters)
    assert (asked["n_ctx"], asked["n_threads"], asked["n_threads_batch"]) == (512, 2, 2)


def test_ik_llamacpp_facts_tell_build_and_storage(api: FakeApi) -> None:
    facts = IkLlamaCpp(SETUP).facts()
    assert facts["versions"] == {"ik-llama-cpp-python": "0.1.5"}
    assert "AVX2 = 1" in facts["system_info"] and facts["file"] == "IQ4_KS"
    assert facts["log"] == ["llama_model_loader: - type iq4_ks:  145 tensors"]
    assert facts["weight_bytes_per_token"] == 1_000 - 200 + 200 // VOCABULARY


def test_ik_llamacpp_tied_table_counts_whole(api: FakeApi) -> None:
    del api.tensors[b"output.weight"]
    assert IkLlamaCpp(SETUP).facts()["weight_bytes_per_token"] == 1_000


def test_ik_llamacpp_tells_how_tensors_are_stored(api: FakeApi) -> None:
    stored = ctypes.c_int(144)
    api.tensors = {b"blk.0.attn_q.weight": ctypes.addressof(stored)}
    api._lib.ggml_nbytes = lambda tensor: 34 if tensor == ctypes.addressof(stored) else 0
    api._lib.ggml_type_name = lambda kind: b"iq4_ks" if kind == 144 else b"f32"
    runner = IkLlamaCpp(SETUP)
    assert runner.stored_tensors(["blk.0.attn_q.weight"]) == {"blk.0.attn_q.weight": ("IQ4_KS", 34)}
    with pytest.raises(MvlmError, match=r"that it has the tensor other"):
        runner.stored_tensors(["other"])


def test_ik_llamacpp_failures_name_what_the_library_said(api: FakeApi) -> None:
    runner = IkLlamaCpp(SETUP)
    api.status = 1
    api.say(4, b"no KV slot\n", None)
    with pytest.raises(MvlmError, match=r"ik_llama\.cpp failed.*decodes: status 1.*no KV slot"):
        runner.prefill([1])
    api.model = None
    with pytest.raises(MvlmError, match="opens the model"):
        IkLlamaCpp(SETUP)


def test_ik_llamacpp_images_are_refused(api: FakeApi) -> None:
    runner = IkLlamaCpp(SETUP)
    with pytest.raises(MvlmError, match=r"ik_llama\.cpp has no MobileVLM"):
        runner.encode_image()
    assert runner.features() is None


@pytest.mark.parametrize(
    ("features", "unused"),
    [
        ({"avx2", "fma", "sse4_2"}, []),
        ({"avx2", "fma", "avx512f", "avx512_vnni"}, ["AVX512", "AVX512_VNNI"]),
        ({"avx2", "avx_vnni"}, ["AVX_VNNI"]),
        ({"asimd", "i8mm"}, ["MATMUL_INT8"]),
        (set(), []),
    ],
)
def test_ik_llamacpp_unused_instructions(features: set[str], unused: list[str]) -> None:
    assert unused_instructions(SYSTEM, features) == unused


def test_ik_llamacpp_build_for_another_cpu_is_refused(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = SimpleNamespace(features={"avx2", "avx512f", "avx512_vnni"})
    monkeypatch.setattr(ik_llamacpp, "read_machine", lambda: machine)
    with pytest.raises(MvlmError, match="not built for this CPU") as refusal:
        ik_llamacpp.require_native(api)
    assert "a build with AVX512, AVX512_VNNI" in str(refusal.value)
    assert "make .venv/ik-llama-cpp.stamp" in str(refusal.value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package's folder in which the quantizer is still missing."""
    package = tmp_path / "package"
    (package / "bin").mkdir(parents=True)
    monkeypatch.setattr(ik_llamacpp, "_package", lambda: package)
    return package


def write_quantizer(package: Path, script: str) -> None:
    quantizer = package / "bin" / "llama-quantize"
    quantizer.write_text(f"#!/bin/sh\n{script}\n")
    quantizer.chmod(0o755)


def test_ik_llamacpp_prepare_leaves_the_quantized_file_only(
    api: FakeApi, package: Path, artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    write_quantizer(package, 'echo "$3 $LD_LIBRARY_PATH $(head -c 4 "$1")" > "$2"')
    folder = tmp_path / "files"
    folder.mkdir()
    ik_llamacpp.prepare(artifact_cache.checkpoint("ldpnet"), None, folder)
    (written,) = folder.iterdir()
    assert ik_llamacpp.files(folder) == {"model": str(written)}
    assert written.read_text() == f"IQ4_KS {package / 'lib'} GGUF\n"


def test_ik_llamacpp_prepare_tells_why_the_quantizer_fails(
    api: FakeApi, package: Path, artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    write_quantizer(package, "echo begins >&2; echo 'unsupported tensor size' >&2; exit 1")
    with pytest.raises(MvlmError, match=r"does not quantize our GGUF.*unsupported tensor size"):
        ik_llamacpp.prepare(artifact_cache.checkpoint("text"), None, tmp_path)


def test_ik_llamacpp_quantizer_is_given_the_importance(package: Path, tmp_path: Path) -> None:
    write_quantizer(package, 'cp "$2" "$4"; echo "$1 $5" >> "$4"')
    importance = {"blk.0.attn_q.weight": np.array([1.5, 2.0], np.float32)}
    quantized = tmp_path / "model.gguf"
    ik_llamacpp.quantize(tmp_path / "whole.gguf", quantized, "IQ4_KSS", importance)
    entry = struct.pack("<ii", 1, 19) + b"blk.0.attn_q.weight" + struct.pack("<iiff", 1, 2, 1.5, 2)
    assert quantized.read_bytes() == entry + b"--imatrix IQ4_KSS\n"
