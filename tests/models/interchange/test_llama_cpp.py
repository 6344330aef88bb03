"""GGUF files in llama.cpp itself: `make test-llama-cpp`, which builds it.

Text must be the same. Images cannot be, because llama.cpp's graph orders the class token and the
patches otherwise than MobileVLM (docs/interchange.md); they are held against torch models that make
the same mistakes, and the size of the mistakes is shown.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.models.synthetic import write_synthetic
from tests.models.test_synthetic import SMALL
from tests.reference import Reference, write_random_checkpoint
from tests.reference.projectors import project

pytestmark = pytest.mark.llama_cpp

TOKENS = 64
# What is left beside the known differences: half-precision weights, the tabulated tanh GELU in
# the projector, and half-precision products in attention.
LEAST_COSINE = 0.9995


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    write_synthetic(SMALL, folder, seed=1)
    return folder


def greedy(path: Path, ids: list[int]) -> list[int]:
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=128, logits_all=False, verbose=False, n_threads=2)
    found = []
    for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        found.append(int(token))
        if len(found) == TOKENS:
            return found
    return found


@pytest.mark.parametrize("kind", ["f16", "f32"])
def test_greedy_tokens_equal_llama_cpps(decoder: Path, tmp_path: Path, kind: str) -> None:
    convert(decoder, tmp_path, Conversion("gguf", kind))
    ids = [1, *np.random.default_rng(2).integers(300, 32_000, 20).tolist()]
    expected, margin = Reference(decoder).greedy_with_margin(ids, n=TOKENS)
    found = greedy(tmp_path / f"model-{kind}.gguf", ids)
    same = next((i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b), TOKENS)
    assert same == TOKENS, f"{same} equal tokens, smallest lead {margin}"


def test_tokenization_equals_llama_cpps(decoder: Path, tmp_path: Path) -> None:
    import llama_cpp
    import sentencepiece

    convert(decoder, tmp_path, Conversion("gguf"))
    model = llama_cpp.Llama(str(tmp_path / "model-f16.gguf"), vocab_only=True, verbose=False)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(decoder / "tokenizer.model"))
    for text in ("hello world", "Zürich, 3 €", "two  spaces", "line\nbreak"):
        assert model.tokenize(text.encode(), add_bos=False) == processor.encode(text)


# --- images -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["ldpnet", "ldpnetv2"])
def seeing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeing") / request.param
    return write_random_checkpoint(
        folder, request.param, seed=0, vision={"image_size": 96, "patch_size": 4}
    )


def encode(folder: Path, image: np.ndarray) -> np.ndarray:
    """Let llama.cpp encode an RGB image ``(S, S, 3)`` uint8: ``(tokens, hidden)``."""
    import llama_cpp
    from llama_cpp import mtmd_cpp as mtmd

    model = llama_cpp.Llama(str(next(folder.glob("model-*.gguf"))), n_ctx=256, verbose=False)
    parameters = mtmd.mtmd_context_params_default()
    parameters.use_gpu, parameters.n_threads = False, 2
    context = mtmd.mtmd_init_from_file(
        str(next(folder.glob("mmproj-*.gguf"))).encode(), model.model, parameters
    )
    height, width, _ = image.shape
    data = (ctypes.c_uint8 * image.size).from_buffer_copy(image.tobytes())
    bitmap = mtmd.mtmd_bitmap_init(width, height, data)
    chunks = mtmd.mtmd_input_chunks_init()
    marker = mtmd.mtmd_default_marker()
    text = mtmd.mtmd_input_text(marker, len(marker), False, True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1) == 0
    for index in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, index)
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            assert mtmd.mtmd_encode_chunk(context, chunk) == 0
            tokens = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            hidden = model.n_embd()
            values = mtmd.mtmd_get_output_embd(context)
            return np.ctypeslib.as_array(values, (tokens * hidden,)).reshape(tokens, hidden).copy()
    raise AssertionError("no image among the chunks")


def expected_embeddings(checkpoint: Path, image: np.ndarray, order: str) -> np.ndarray:
    """The official computation, or one with the class token where llama.cpp has it."""
    reference, config = Reference(checkpoint), read_config(checkpoint)
    assert config.image is not None and reference.tower is not None
    scaled = image.astype(np.float32) / 255
    mean, std = (np.array(values, np.float32) for values in (config.image.mean, config.image.std))
    pixels = ((scaled - mean) / std).transpose(2, 0, 1)[None]
    if order == "official":
        return reference.projector_output(pixels)[0]
    tower = reference.tower.vision_model
    with torch.inference_mode():
        patches = tower.embeddings.patch_embedding(torch.from_numpy(pixels))
        patches = patches.flatten(2).transpose(1, 2)
        token = tower.embeddings.class_embedding[None, None]
        positions = tower.embeddings.position_embedding.weight
        states = tower.pre_layrnorm(torch.cat([patches, token], 1) + positions)
        for layer in tower.encoder.layers[: config.num_used_vision_layers]:
            found = layer(states, None, None)
            states = found[0] if isinstance(found, tuple) else found
        kind = reference.config["mm_projector_type"]
        result: Any = project(kind, reference.projector, states[:, 1:])[0].numpy()
    return result


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float((left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right))


def test_image_embeddings(seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(seeing, tmp_path, Conversion("gguf", "f32"))
    image = np.random.default_rng(3).integers(0, 256, (96, 96, 3), np.uint8)
    found = encode(tmp_path, image)
    same = cosine(found, expected_embeddings(seeing, image, "class token last"))
    official = cosine(found, expected_embeddings(seeing, image, "official"))
    with capsys.disabled():
        print(f"\n{seeing.name}: cosine {same:.5f} to torch with the class token last, "
              f"{official:.3f} to the official computation")  # fmt: skip
    assert same > LEAST_COSINE


def test_every_weight_is_in_the_gguf_file(seeing: Path, tmp_path: Path) -> None:
    """What llama.cpp does not ask for would go unnoticed."""
    import gguf

    convert(seeing, tmp_path, Conversion("gguf", "f32"))
    written = sum(
        int(tensor.n_elements)
        for path in tmp_path.glob("*.gguf")
        for tensor in gguf.GGUFReader(path).tensors
    )
    checkpoint = open_checkpoint(seeing)
    total = sum(
        int(np.prod(checkpoint.shape(name))) for name in expected_tensors(read_config(seeing))
    )
    assert written == total
