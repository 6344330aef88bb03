"""llama.cpp, through llama-cpp-python's plain bindings: a Q4_0 file and an f16 mmproj.

The calls are timed as the library has them: `llama_decode` for text, mtmd for images. Everything
that is not said here is llama.cpp's default: micro-batches of 512, weights mapped and repacked for
this CPU, flash attention where it chooses it, an f16 KV cache. Its numbers for images are not
MobileVLM's (docs/interchange.md), but they are as much work.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.bench.peers.ggml_log import GgmlLog
from mvlm.bench.peers.runner import FloatArray, Importance, RgbImage, Setup

_FILE_TYPE = "Q4_0"
_MODEL, _VISION = "model-q4_0.gguf", "mmproj-f16.gguf"
_EMBEDDING = "token_embd.weight"
# What its log says of the place of the weights, such as "CPU_REPACK model buffer size".
_TOLD = ("model buffer size", "Flash Attention", "flash_attn", "KV buffer size")


def prepare(checkpoint: Path, vision_tower: Path | None, folder: Path) -> None:
    """Write the decoder as Q4_0, by llama.cpp's own quantizer, and tower and projector as f16.

    Raises:
        MvlmError: llama.cpp does not take our file.
    """
    from mvlm.models.interchange import Conversion, convert

    convert(checkpoint, folder, Conversion("gguf", "f16"), vision_tower=vision_tower)
    whole = folder / "model-f16.gguf"
    quantize(whole, folder / _MODEL, _FILE_TYPE)
    whole.unlink()


def quantize(
    whole: Path, quantized: Path, file_type: str, importance: Importance | None = None
) -> None:
    """Quantize a GGUF file by llama.cpp's own quantizer and its own choice of types.

    Args:
        whole: In f32 or f16.
        quantized: The file to write.
        file_type: As `llama-quantize` names it, such as ``Q4_K_M``.
        importance: Of each matrix's inputs, if the types are to be chosen and rounded by it.

    Raises:
        MvlmError: llama.cpp does not take the file.
    """
    import llama_cpp

    log = _listen(llama_cpp)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    # The last entry has no name.
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance or ()) + 1))()
    for entry, (name, values) in zip(entries, (importance or {}).items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if importance:
        parameters.imatrix = entries
    status = llama_cpp.llama_model_quantize(
        str(whole).encode(), str(quantized).encode(), ctypes.byref(parameters)
    )
    log.require(status == 0, f"quantizes our GGUF file to {file_type}: status {status}")


def files(folder: Path) -> dict[str, str]:
    """Name the files that :func:`prepare` wrote."""
    named = {"model": folder / _MODEL, "vision": folder / _VISION}
    return {name: str(path) for name, path in named.items() if path.is_file()}


def open_runner(setup: Setup) -> LlamaCpp:
    """Open the files."""
    return LlamaCpp(setup)


class LlamaCpp:
    """One context of a model."""

    def __init__(self, setup: Setup) -> None:
        import llama_cpp

        self._setup, self._api = setup, llama_cpp
        self._log = _listen(llama_cpp)
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            setup.files["model"].encode(), llama_cpp.llama_model_default_params()
        )
        self._log.require(self._model, "opens the model")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = setup.context
        parameters.n_threads = parameters.n_threads_batch = setup.threads
        if setup.sequences > 1:
            # One cache for all, of which each sequence takes what it needs.
            parameters.n_seq_max, parameters.kv_unified = setup.sequences, True
        self._parameters = parameters
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        self._log.require(self._context, "makes a context")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._token = 0
        # Of each sequence: its next position and the token chosen for it.
        self._next: list[tuple[int, int]] = []
        self._vision_tower = (
            _VisionTower(self._model, setup, self._log) if setup.has_vision else None
        )

    def facts(self) -> dict[str, Any]:
        """Return the build's flags, and how the weights are held."""
        return {
            "versions": {"llama-cpp-python": self._api.__version__},
            "system_info": self._api.llama_print_system_info().decode().strip(" |"),
            "file": _FILE_TYPE,
            "n_batch": self._parameters.n_batch,
            "n_ubatch": self._parameters.n_ubatch,
            "log": self._log.lines_with(_TOLD),
            "weight_bytes_per_token": _weight_bytes(Path(self._setup.files["model"])),
        }

    def prefill(self, ids: Sequence[int]) -> None:
        """Read a prompt into the emptied cache."""
        self._api.llama_memory_clear(self._memory, False)
        self._decode(ids)

    def decode(self) -> None:
        """Decode one token."""
        self._decode([self._token])

    def begin_batch(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read prompts into the emptied cache, and choose the next token of each."""
        self._api.llama_memory_clear(self._memory, False)
        self._next = []
        for sequence, ids in enumerate(prompts):
            entries = [(sequence, position, token) for position, token in enumerate(ids)]
            (token,) = self._decode_entries(entries, [len(ids) - 1])
            self._next.append((len(ids), token))

    def decode_batch(self) -> None:
        """Decode a token of every sequence by one call."""
        entries = [(sequence, *at) for sequence, at in enumerate(self._next)]
        tokens = self._decode_entries(entries, range(len(entries)))
        self._next = [
            (position + 1, token) for (position, _), token in zip(self._next, tokens, strict=True)
        ]

    def _decode_entries(
        self, entries: Sequence[tuple[int, int, int]], wanted: Collection[int]
    ) -> list[int]:
        """Read tokens, each of a sequence and a position; choose those behind some of them."""
        api = self._api
        batch = api.llama_batch_init(len(entries), 0, 1)
        batch.n_tokens = len(entries)
        for row, (sequence, position, token) in enumerate(entries):
            batch.token[row], batch.pos[row] = token, position
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
            batch.logits[row] = row in wanted
        status = api.llama_decode(self._context, batch)
        api.llama_batch_free(batch)
        self._log.require(status == 0, f"decodes: status {status}")
        found = [api.llama_get_logits_ith(self._context, row) for row in wanted]
        vocabulary = (self._setup.vocabulary,)
        return [int(np.argmax(np.ctypeslib.as_array(each, vocabulary))) for each in found]

    def all_logits(self, ids: Sequence[int]) -> FloatArray:
        """Read a prompt into the emptied cache; return the logits ``(n, V)`` of all positions."""
        api, count = self._api, len(ids)
        api.llama_memory_clear(self._memory, False)
        batch = api.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for position, token in enumerate(ids):
            batch.token[position], batch.pos[position] = token, position
            batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
            batch.logits[position] = True
        status = api.llama_decode(self._context, batch)
        api.llama_batch_free(batch)
        self._log.require(status == 0, f"decodes: status {status}")
        logits = api.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, (count, self._setup.vocabulary)).copy()

    def stored_tensors(self, names: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Return type and bytes of some of the file's tensors, by their names."""
        import gguf

        tensors = {each.name: each for each in gguf.GGUFReader(self._setup.files["model"]).tensors}
        return {
            name: (tensors[name].tensor_type.name, int(tensors[name].n_bytes)) for name in names
        }

    def set_image(self, image: RgbImage) -> None:
        """Let mtmd preprocess an image."""
        self._require_vision().set_image(image)

    def encode_image(self) -> None:
        """Run tower and projector."""
        self._require_vision().encode_image()

    def features(self) -> FloatArray | None:
        """Return None: only the projector's output can be had."""
        return None

    def first_token(self, image: RgbImage, ids: Sequence[int]) -> None:
        """Read an image and a question, the image first."""
        self._api.llama_memory_clear(self._memory, False)
        tower = self._require_vision()
        tower.set_image(image)
        tower.encode_image()
        tower.prefill_into(self._context, self._parameters.n_batch)
        self._decode(ids)

    def _decode(self, ids: Sequence[int]) -> None:
        tokens = (self._api.llama_token * len(ids))(*ids)
        batch = self._api.llama_batch_get_one(tokens, len(ids))
        status = self._api.llama_decode(self._context, batch)
        self._log.require(status == 0, f"decodes: status {status}")
        logits = self._api.llama_get_logits_ith(self._context, -1)
        self._token = int(np.argmax(np.ctypeslib.as_array(logits, (self._setup.vocabulary,))))

    def _require_vision(self) -> _VisionTower:
        self._log.require(self._vision_tower, "opens the mmproj")
        assert self._vision_tower is not None
        return self._vision_tower


class _VisionTower:
    """llama.cpp's multimodal half, and the image that it was shown."""

    def __init__(self, model: Any, setup: Setup, log: GgmlLog) -> None:
        from llama_cpp import mtmd_cpp

        self._api, self._log = mtmd_cpp, log
        for listen in (mtmd_cpp.mtmd_log_set, mtmd_cpp.mtmd_helper_log_set):
            listen(log.callback, ctypes.c_void_p(0))
        parameters = mtmd_cpp.mtmd_context_params_default()
        parameters.use_gpu = parameters.warmup = False
        parameters.n_threads = setup.threads
        self._context = mtmd_cpp.mtmd_init_from_file(
            setup.files["vision"].encode(), model, parameters
        )
        log.require(self._context, "opens the mmproj")
        self._chunks: Any = None
        self._chunk: Any = None

    def set_image(self, image: RgbImage) -> None:
        api = self._api
        height, width, _ = image.shape
        pixels = (ctypes.c_uint8 * image.size).from_buffer_copy(image.tobytes())
        bitmap = api.mtmd_bitmap_init(width, height, pixels)
        if self._chunks is not None:
            api.mtmd_input_chunks_free(self._chunks)
        self._chunks = api.mtmd_input_chunks_init()
        marker = api.mtmd_default_marker()
        text = api.mtmd_input_text(marker, len(marker), False, True)
        bitmaps = (api.mtmd_bitmap_p_ctypes * 1)(bitmap)
        status = api.mtmd_tokenize(self._context, self._chunks, ctypes.byref(text), bitmaps, 1)
        api.mtmd_bitmap_free(bitmap)
        self._log.require(status == 0, f"takes the image: status {status}")
        found = [
            api.mtmd_input_chunks_get(self._chunks, index)
            for index in range(api.mtmd_input_chunks_size(self._chunks))
        ]
        images = [
            chunk
            for chunk in found
            if api.mtmd_input_chunk_get_type(chunk) == api.MTMD_INPUT_CHUNK_TYPE_IMAGE
        ]
        self._log.require(len(images) == 1, f"takes one image, not {len(images)}")
        self._chunk = images[0]

    def encode_image(self) -> None:
        status = self._api.mtmd_encode_chunk(self._context, self._chunk)
        self._log.require(status == 0, f"encodes the image: status {status}")

    def prefill_into(self, context: Any, batch: int) -> None:
        after = ctypes.c_int32(0)
        status = self._api.mtmd_helper_decode_image_chunk(
            self._context,
            context,
            self._chunk,
            self._api.mtmd_get_output_embd(self._context),
            0,
            0,
            batch,
            ctypes.byref(after),
            self._api.mtmd_helper_post_decode_callback(),
            None,
        )
        self._log.require(status == 0, f"reads the image: status {status}")


def _listen(llama_cpp: Any) -> GgmlLog:
    """Take the library's log."""
    log = GgmlLog("llama.cpp", llama_cpp.llama_log_callback)
    llama_cpp.llama_log_set(log.callback, ctypes.c_void_p(0))
    return log


def _weight_bytes(file: Path) -> int:
    """Bytes that a decoded token reads: all weights, but of the embedding table one row."""
    import gguf

    total = 0
    for tensor in gguf.GGUFReader(file).tensors:
        rows = int(tensor.shape[-1]) if tensor.name == _EMBEDDING else 1
        total += int(tensor.n_bytes) // rows
    return total
