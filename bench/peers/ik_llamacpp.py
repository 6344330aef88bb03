"""ik_llama.cpp, a fork of llama.cpp with CPU kernels of its own: an IQ4_KS file, text alone.

The fork's own quantizer writes the file by its own rules: the output head in Q6_K, `ffn_down` of
the first eighth of the layers in Q5_K, everything else in IQ4_KS, the embedding table too. A matrix
whose rows are no multiple of 256 is stored in IQ4_NL or Q8_0.

Flash attention, the fused gate and the reuse of compute graphs are on, as the fork has them by
default. Run-time repacking (`-rtr`) is off: it stores IQ4_KS in rows of four, which the fork then
does not unpack to 8 bits for a prompt, and prefill is slower.

The calls are timed as the library has them, through the bindings of ik-llama-cpp-python. They lay
out the fork's structures for one version of it alone, so that version is pinned.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
from collections.abc import Collection, Iterable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.bench.peers.ggml_log import GgmlLog
from mvlm.bench.peers.runner import FloatArray, Importance, Setup, TextOnlyRunner
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.machine import read_machine

NAME = "ik_llama.cpp"

_DISTRIBUTION, _PACKAGE = "ik-llama-cpp-python", "ik_llama_cpp"
_STAMP = ".venv/ik-llama-cpp.stamp"  # of the Makefile
_FILE_TYPE = "IQ4_KS"
_MODEL = "model-iq4_ks.gguf"
_EMBEDDING, _HEAD = b"token_embd.weight", b"output.weight"
# Lines of its log that say how weights and cache are stored and which fused operations run.
_TOLD = (" - type ", "model size", "Repacked", "KV self size", "flash_attn", "fused_up_gate")
# Instruction sets that decide its speed: the build's name for each, and /proc/cpuinfo's.
_INSTRUCTIONS = {
    "AVX2": "avx2",
    "FMA": "fma",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AVX_VNNI": "avx_vnni",
    "MATMUL_INT8": "i8mm",
}


def prepare(checkpoint: Path, vision_tower: Path | None, folder: Path) -> None:
    """Write the decoder as IQ4_KS, by the fork's own quantizer.

    Raises:
        MvlmError: The build leaves out instructions of this CPU, or the quantizer fails.
    """
    from mvlm.models.interchange import Conversion, convert

    _bindings()
    conversion = Conversion("gguf", "f16", text_only=True)
    convert(checkpoint, folder, conversion, vision_tower=vision_tower)
    whole = folder / "model-f16.gguf"
    quantize(whole, folder / _MODEL, _FILE_TYPE)
    whole.unlink()


def quantize(
    whole: Path, quantized: Path, file_type: str, importance: Importance | None = None
) -> None:
    """Quantize a GGUF file by the fork's own quantizer and its own choice of types.

    Args:
        whole: In f32 or f16.
        quantized: The file to write.
        file_type: As `llama-quantize` names it, such as ``IQ4_KS``.
        importance: Of each matrix's inputs, if the types are to be chosen and rounded by it.

    Raises:
        MvlmError: The quantizer fails.
    """
    package = _package()
    options: list[str | Path] = []
    if importance:
        file = quantized.with_suffix(".imatrix")
        file.write_bytes(importance_file(importance))
        options = ["--imatrix", file]
    done = subprocess.run(
        [package / "bin" / "llama-quantize", *options, whole, quantized, file_type],
        env=os.environ | {"LD_LIBRARY_PATH": str(package / "lib")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise MvlmError(f"{NAME} does not quantize our GGUF file", found=said[0])


def importance_file(importance: Importance) -> bytes:
    """Return an importance matrix as `llama-quantize` reads it, little-endian.

    The number of entries (int32), then of each: the length of its name (int32), the name, the
    number of batches that its values are sums over (int32), the number of values (int32), the
    values (float32).
    """
    parts = [struct.pack("<i", len(importance))]
    for name, values in importance.items():
        encoded = name.encode()
        parts += [
            struct.pack("<i", len(encoded)),
            encoded,
            struct.pack("<ii", 1, values.size),
            values.astype("<f4").tobytes(),
        ]
    return b"".join(parts)


def files(folder: Path) -> dict[str, str]:
    """Name the file that :func:`prepare` wrote."""
    return {"model": str(folder / _MODEL)}


def open_runner(setup: Setup) -> IkLlamaCpp:
    """Open the file."""
    return IkLlamaCpp(setup)


class IkLlamaCpp(TextOnlyRunner):
    """One context of a model."""

    name = NAME

    def __init__(self, setup: Setup) -> None:
        self._setup, self._api = setup, _bindings()
        self._log = GgmlLog(NAME)
        log_callback = ctypes.cast(self._log.callback, ctypes.c_void_p)
        self._api._lib.llama_log_set(log_callback, None)
        self._api.llama_backend_init()
        self._model = self._api.llama_model_load_from_file(
            setup.files["model"].encode(), self._api.llama_model_default_params()
        )
        self._log.require(self._model, "opens the model")
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = setup.context
        parameters.n_threads = parameters.n_threads_batch = setup.threads
        self._context = self._api.llama_init_from_model(self._model, parameters)
        self._log.require(self._context, "makes a context")
        self._parameters = parameters
        self._position = self._token = 0

    def facts(self) -> dict[str, Any]:
        """Return the build's instruction sets, and how the weights are stored."""
        return {
            "versions": {_DISTRIBUTION: metadata.version(_DISTRIBUTION)},
            "system_info": _system_info(self._api),
            "file": _FILE_TYPE,
            "n_batch": self._parameters.n_batch,
            "n_ubatch": self._parameters.n_ubatch,
            "log": self._log.lines_with(_TOLD),
            "weight_bytes_per_token": self._weight_bytes(),
        }

    def prefill(self, ids: Sequence[int]) -> None:
        """Read a prompt into the emptied cache."""
        self._api.llama_kv_cache_clear(self._context)
        self._position = 0
        self._run(ids)

    def decode(self) -> None:
        """Decode one token."""
        self._run([self._token])

    def all_logits(self, ids: Sequence[int]) -> FloatArray:
        """Read a prompt into the emptied cache; return the logits ``(n, V)`` of all positions."""
        self._api.llama_kv_cache_clear(self._context)
        count = len(ids)
        batch = self._api.llama_batch(
            n_tokens=count,
            token=(self._api.llama_token * count)(*ids),
            logits=(ctypes.c_int8 * count)(*([1] * count)),
            all_pos_0=0,
            all_pos_1=1,
            all_seq_id=0,
        )
        status = self._api.llama_decode(self._context, batch)
        self._log.require(status == 0, f"decodes: status {status}")
        self._position = count
        rows = []
        for position in range(count):
            logits = self._api.llama_get_logits_ith(self._context, position)
            self._log.require(logits, "returns logits")
            rows.append(np.ctypeslib.as_array(logits, (self._setup.vocabulary,)).copy())
        return np.stack(rows)

    def stored_tensors(self, names: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Return type and bytes of some of the file's tensors, by their names."""
        library = self._api._lib
        found = {}
        for name in names:
            tensor = library.llama_get_model_tensor(self._model, name.encode())
            self._log.require(tensor, f"has the tensor {name}")
            kind = ctypes.cast(tensor, ctypes.POINTER(ctypes.c_int))[0]  # the structure's first
            type_name: bytes = library.ggml_type_name(kind)
            found[name] = (type_name.decode().upper(), int(library.ggml_nbytes(tensor)))
        return found

    def _run(self, ids: Sequence[int]) -> None:
        tokens = (self._api.llama_token * len(ids))(*ids)
        # Without positions and sequences of its own, a batch counts on from `all_pos_0`.
        batch = self._api.llama_batch(
            n_tokens=len(ids), token=tokens, all_pos_0=self._position, all_pos_1=1, all_seq_id=0
        )
        status = self._api.llama_decode(self._context, batch)
        self._log.require(status == 0, f"decodes: status {status}")
        self._position += len(ids)
        logits = self._api.llama_get_logits_ith(self._context, -1)
        self._log.require(logits, "returns logits")
        self._token = int(np.argmax(np.ctypeslib.as_array(logits, (self._setup.vocabulary,))))

    def _weight_bytes(self) -> int:
        """Bytes that a decoded token reads: all weights, but of the embedding table one row."""
        library = self._api._lib
        total = int(library.llama_model_size(self._model))
        if not library.llama_get_model_tensor(self._model, _HEAD):
            return total  # the table is the output head, too
        table = library.llama_get_model_tensor(self._model, _EMBEDDING)
        nbytes = int(library.ggml_nbytes(table))
        return total - nbytes + nbytes // self._setup.vocabulary


def unused_instructions(system_info: str, features: Collection[str]) -> list[str]:
    """Return the instruction sets that the CPU has and the build leaves out.

    Args:
        system_info: What the library says of its build, such as ``AVX2 = 1 | AVX512 = 0``.
        features: The CPU's, by /proc/cpuinfo's names.
    """
    used = {name for name, value in re.findall(r"(\w+) = (\d)", system_info) if value == "1"}
    return [name for name, has in _INSTRUCTIONS.items() if has in features and name not in used]


def require_native(api: Any) -> None:
    """Refuse a build whose speed on this CPU would not be the fork's.

    Args:
        api: The module of the bindings, its functions declared.

    Raises:
        MvlmError: The build leaves out instructions of this CPU.
    """
    if unused := unused_instructions(_system_info(api), read_machine().features):
        raise MvlmError(
            f"{NAME} is not built for this CPU",
            expected="a build with " + ", ".join(unused),
            found="one without",
            fix=f"In mvlm's source tree: `rm -f {_STAMP} && make {_STAMP}`, which builds it anew.",
        )


def _bindings() -> Any:
    """Load the library and return the module of its bindings.

    Raises:
        MvlmError: The build leaves out instructions of this CPU.
    """
    # A libllama.so that was built from source finds its libggml.so only if that is loaded already.
    ctypes.CDLL(str(_package() / "lib" / "libggml.so"))
    from ik_llama_cpp import _ctypes_api as api

    pointer = ctypes.c_void_p
    for name, result, arguments in (
        ("llama_print_system_info", ctypes.c_char_p, []),
        ("llama_log_set", None, [pointer, pointer]),
        ("llama_model_size", ctypes.c_uint64, [pointer]),
        ("llama_get_model_tensor", pointer, [pointer, ctypes.c_char_p]),
        ("ggml_nbytes", ctypes.c_size_t, [pointer]),
        ("ggml_type_name", ctypes.c_char_p, [ctypes.c_int]),
    ):
        function = getattr(api._lib, name)
        function.restype, function.argtypes = result, arguments
    require_native(api)
    return api


def _package() -> Path:
    """Return the installed package's folder, without importing it."""
    spec = find_spec(_PACKAGE)
    assert spec is not None and spec.origin is not None, "the catalogue asks for the package"
    return Path(spec.origin).parent


def _system_info(api: Any) -> str:
    said: bytes = api._lib.llama_print_system_info()
    return said.decode().strip(" |")
