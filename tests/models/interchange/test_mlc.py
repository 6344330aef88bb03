"""mlc-llm's format: written as TVM's own reader reads it, and read back."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm.contrib import tvmjs

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.runtime.artifact import map_weights
from mvlm.runtime.artifact.weights import read_weights_index
from mvlm.runtime.errors import CheckpointError, ConfigError, MvlmError, UsageError
from mvlm.schedules.oracles.arithmetic import from_q4
from tests.artifacts import ArtifactCache


def converted(checkpoint: Path, folder: Path, kind: str) -> Path:
    folder.mkdir()
    convert(checkpoint, folder, Conversion("mlc", kind))
    return folder


def loaded(folder: Path) -> dict[str, np.ndarray]:
    arrays, _ = tvmjs.load_tensor_cache(str(folder), tvm.cpu())
    return {name: array.numpy() for name, array in arrays.items()}


@pytest.mark.parametrize("kind", ["q0f32", "q4f16_1"])
def test_the_decoder_under_mlcs_names(
    artifact_cache: ArtifactCache, tmp_path: Path, kind: str
) -> None:
    checkpoint = artifact_cache.checkpoint("linear")  # with grouped heads
    arrays = loaded(converted(checkpoint, tmp_path / "mlc", kind))
    plain, config = open_checkpoint(checkpoint), read_config(checkpoint)
    layer = "model.layers.1."
    stacks = {
        "model.embed_tokens": ("model.embed_tokens",),
        "lm_head": ("lm_head",),
        f"{layer}self_attn.qkv_proj": [f"{layer}self_attn.{p}_proj" for p in "qkv"],
        f"{layer}self_attn.o_proj": [f"{layer}self_attn.o_proj"],
        f"{layer}mlp.gate_up_proj": [f"{layer}mlp.{p}_proj" for p in ("gate", "up")],
        f"{layer}mlp.down_proj": [f"{layer}mlp.down_proj"],
    }
    for name, parts in stacks.items():
        matrix = np.concatenate([plain.read(f"{part}.weight") for part in parts])
        if kind == "q0f32":
            np.testing.assert_array_equal(arrays[f"{name}.weight"], matrix)
            continue
        words, scales = arrays[f"{name}.q_weight"], arrays[f"{name}.q_scale"]
        assert (words.dtype, scales.dtype) == (np.uint32, np.float16)
        assert words.shape == (matrix.shape[0], matrix.shape[1] // 8)
        step = scales.astype(np.float32).repeat(32, axis=1)
        error = np.abs(from_q4(words, scales, matrix.shape[1]) - matrix)
        assert (error <= 0.51 * step + 1e-6).all()
    norms = [name for name in arrays if name.endswith("layernorm.weight")]
    assert len(norms) == 2 * config.language.num_hidden_layers
    assert arrays["model.norm.weight"].dtype == ("float32" if kind == "q0f32" else "float16")


def test_the_chat_configuration(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    folder = converted(artifact_cache.checkpoint("text"), tmp_path / "mlc", "q4f16_1")
    chat = json.loads((folder / "mlc-chat-config.json").read_text())
    language = read_config(artifact_cache.checkpoint("text")).language
    assert (chat["model_type"], chat["quantization"]) == ("llama", "q4f16_1")
    assert chat["model_config"]["hidden_size"] == language.hidden_size
    assert chat["model_config"]["position_embedding_base"] == language.rope_theta
    assert chat["conv_template"]["system_message"].startswith("A chat between a curious user")
    for name in chat["tokenizer_files"]:
        assert (folder / name).is_file()
    cache = json.loads((folder / "tensor-cache.json").read_text())
    assert cache["metadata"]["ParamSize"] == sum(len(s["records"]) for s in cache["records"])
    assert 4.4 < cache["metadata"]["BitsPerParam"] < 6


@pytest.mark.parametrize("family", ["text", "linear", "ldpnet", "ldpnetv2", "mlp3x_gelu"])
@pytest.mark.parametrize("kind", ["q4f16_1", "q0f32"])
def test_round_trip_to_the_bit(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str, kind: str
) -> None:
    """Read back and written again, every shard has the same bytes."""
    first = converted(artifact_cache.checkpoint(family), tmp_path / "first", kind)
    second = converted(first, tmp_path / "second", kind)
    shards = sorted(first.glob("*.bin"))
    assert shards
    for shard in shards:
        assert shard.read_bytes() == (second / shard.name).read_bytes()
    left, right = (json.loads((f / "tensor-cache.json").read_text()) for f in (first, second))
    assert left == right


@pytest.mark.parametrize("family", ["ldpnet", "ldpnetv2"])
def test_unquantized_tensors_come_back(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str
) -> None:
    checkpoint = artifact_cache.checkpoint(family)
    folder = converted(checkpoint, tmp_path / "mlc", "q0f32")
    config = read_config(folder)
    assert config == read_config(checkpoint)
    before, after = open_checkpoint(checkpoint), open_checkpoint(folder)
    expected = expected_tensors(config)
    after.check(expected).raise_if_bad()
    for name in expected:
        np.testing.assert_array_equal(before.read(name), after.read(name), err_msg=name)


@pytest.mark.extended
def test_a_compiled_model_is_the_same_from_either(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    """4-bit weights from mlc-llm's file are those that we quantize ourselves."""
    checkpoint = artifact_cache.checkpoint("text")
    folder = converted(checkpoint, tmp_path / "mlc", "q4f16_1")
    found = []
    for source in (checkpoint, folder):
        place = tmp_path / f"artifact{len(found)}"
        compile_job(plan_job(source, quantization="q4f16_1"), place)
        names = [entry.name for entry in read_weights_index(place).tensors]
        found.append(dict(zip(names, map_weights(place), strict=True)))
    quantized = [name for name in found[0] if ".q_" in name]
    assert len(quantized) == 2 * (4 * 2 + 2)
    for name in quantized:
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


def test_text_only_models_need_no_other_configuration(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    """A folder as mlc-llm's own tools write it has no `config.json`."""
    checkpoint = artifact_cache.checkpoint("text")
    folder = converted(checkpoint, tmp_path / "mlc", "q4f16_1")
    (folder / "config.json").unlink()
    (folder / "generation_config.json").unlink()
    (folder / "tensor-cache.json").rename(folder / "ndarray-cache.json")
    assert read_config(folder).language == read_config(checkpoint).language
    assert read_config(folder).generation == read_config(checkpoint).generation
    open_checkpoint(folder).check(expected_tensors(read_config(folder))).raise_if_bad()


def test_bfloat16_in_both_spellings(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    folder = converted(artifact_cache.checkpoint("text"), tmp_path / "mlc", "q0bf16")
    plain = open_checkpoint(folder).read("model.norm.weight")
    assert plain.dtype == "bfloat16"
    path = folder / "tensor-cache.json"
    cache = json.loads(path.read_text())
    for shard in cache["records"]:
        for record in shard["records"]:
            record.update(dtype="float32", format="f32-to-bf16")
    path.write_text(json.dumps(cache))
    np.testing.assert_array_equal(open_checkpoint(folder).read("model.norm.weight"), plain)


# --- what is not to be trusted ------------------------------------------------------------------


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tensor-cache.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def first(values: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = values["records"][0]["records"][0]
    return record


def named(values: dict[str, Any], name: str) -> dict[str, Any]:
    records: list[dict[str, Any]] = [r for shard in values["records"] for r in shard["records"]]
    return next(record for record in records if record["name"] == name)


def scale_of(values: dict[str, Any]) -> dict[str, Any]:
    return named(values, "model.embed_tokens.q_scale")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no records": (lambda f: edit(f, lambda v: v.pop("records")), "has no `records`"),
    "records of text": (lambda f: edit(f, lambda v: v.update(records="x")), "list of objects"),
    "a shard elsewhere": (
        lambda f: edit(f, lambda v: v["records"][0].update(dataPath="../x.bin")),
        "not next to it",
    ),
    "a shard that is gone": (lambda f: (f / "params_shard_0.bin").unlink(), "is missing"),
    "half a shard": (
        lambda f: (f / "params_shard_0.bin").write_bytes(b"half"),
        "wrong size: expected",
    ),
    "a record past the end": (
        lambda f: edit(f, lambda v: first(v).update(byteOffset=1 << 33)),
        "byteOffset",
    ),
    "a shape that its bytes do not fill": (
        lambda f: edit(f, lambda v: first(v).update(shape=[1 << 31, 1 << 31])),
        "nbytes",
    ),
    "a negative shape": (lambda f: edit(f, lambda v: first(v).update(shape=[-1, 4])), "shape"),
    "an unknown dtype": (lambda f: edit(f, lambda v: first(v).update(dtype="object")), "dtype"),
    "dtypes in a list": (
        lambda f: edit(f, lambda v: first(v).update(dtype=["uint32"])),
        r"`dtype`: expected .*uint32.*found \['uint32'\]",
    ),
    "an object as dtype": (lambda f: edit(f, lambda v: first(v).update(dtype={})), "`dtype`"),
    "a scalar": (lambda f: edit(f, lambda v: first(v).update(shape=[])), "`shape`.*1 to 8 sizes"),
    "a shape of truths": (lambda f: edit(f, lambda v: first(v).update(shape=[True])), "`shape`"),
    "a shape of text": (lambda f: edit(f, lambda v: first(v).update(shape="44")), "`shape`"),
    "a checksum that is a number": (
        lambda f: edit(f, lambda v: v["records"][0].update(md5sum=7)),
        "`md5sum`.*hexadecimal",
    ),
    "a checksum that is none": (
        lambda f: edit(f, lambda v: v["records"][0].update(md5sum="abc")),
        "`md5sum`.*hexadecimal",
    ),
    "a name that is a number": (lambda f: edit(f, lambda v: first(v).update(name=3)), "`name`"),
    "a file that is a list": (
        lambda f: edit(f, lambda v: v["records"][0].update(dataPath=["params_shard_0.bin"])),
        "plain file name",
    ),
    "scales without words": (
        lambda f: edit(f, lambda v: first(v).update(name="model.extra.q_scale")),
        "no scales|do not fit",
    ),
    "scales of another type": (
        lambda f: edit(f, lambda v: scale_of(v).update(dtype="bfloat16")),
        "not stored as q4f16_1.*float16",
    ),
    "a tensor alone and in a stack": (
        lambda f: edit(
            f,
            lambda v: named(v, "model.norm.weight").update(
                name="model.layers.0.self_attn.q_proj.weight"
            ),
        ),
        "holds model.layers.0.self_attn.q_proj.weight twice",
    ),
    "a name twice": (
        lambda f: edit(f, lambda v: first(v).update(name="model.norm.weight")),
        "no other array",
    ),
    "words without scales": (
        lambda f: edit(
            f, lambda v: first(v).update(name=first(v)["name"].replace("q_weight", "q_words"))
        ),
        "do not fit its config.json",
    ),
    "a flipped bit": (lambda f: flip(f / "params_shard_0.bin"), "is damaged.*md5"),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.fixture(scope="module")
def written(artifact_cache: ArtifactCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(
        artifact_cache.checkpoint("text"), tmp_path_factory.mktemp("bad") / "mlc", "q4f16_1"
    )


@pytest.mark.parametrize("name", BAD)
def test_bad_tensor_caches_are_refused(written: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mlc"
    shutil.copytree(written, folder)
    change, message = BAD[name]
    change(folder)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        checkpoint = open_checkpoint(folder)
        checkpoint.check(expected_tensors(read_config(folder))).raise_if_bad()
        for tensor in checkpoint.names():
            checkpoint.read(tensor)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
PLACES = [
    *(("record", key) for key in ("name", "shape", "dtype", "format", "nbytes", "byteOffset")),
    *(("shard", key) for key in ("dataPath", "format", "nbytes", "md5sum", "records")),
    *(("file", key) for key in ("records", "metadata")),
    *(("model", key) for key in ("num_attention_heads", "num_key_value_heads")),
]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.sampled_from(PLACES), value=JSON_VALUES, which=st.integers(0, 40))
def test_any_value_of_any_key_is_read_or_refused(
    written: Path, place: tuple[str, str], value: object, which: int
) -> None:
    """Read or refused; never another error."""
    level, key = place
    path = written / ("mlc-chat-config.json" if level == "model" else "tensor-cache.json")
    before = path.read_bytes()
    values = json.loads(before)
    shard = values["records"][0] if level != "model" else {}
    changed: dict[str, Any] = {
        "record": lambda: shard["records"][which % len(shard["records"])],
        "shard": lambda: shard,
        "file": lambda: values,
        "model": lambda: values["model_config"],
    }[level]()
    changed[key] = value
    try:
        path.write_text(json.dumps(values))
        checkpoint = open_checkpoint(written)
    except (CheckpointError, ConfigError) as error:
        assert len(str(error)) < 1500
    else:
        assert all(len(checkpoint.shape(name)) >= 1 for name in checkpoint.names())
    finally:
        path.write_bytes(before)


def test_checksums_match_the_shards(written: Path) -> None:
    shards = json.loads((written / "tensor-cache.json").read_text())["records"]
    assert shards
    for shard in shards:
        data = (written / shard["dataPath"]).read_bytes()
        assert hashlib.md5(data).hexdigest() == shard["md5sum"]
        assert len(data) == shard["nbytes"] <= 32 << 20


@pytest.mark.parametrize(
    ("conversion", "error"),
    [
        (lambda: Conversion("onyx"), UsageError),
        (lambda: Conversion("mlc", "q3f16"), UsageError),
    ],
)
def test_unknown_conversions_are_refused(
    artifact_cache: ArtifactCache,
    tmp_path: Path,
    conversion: Callable[[], Conversion],
    error: type[MvlmError],
) -> None:
    with pytest.raises(error):
        convert(artifact_cache.checkpoint("text"), tmp_path, conversion())
