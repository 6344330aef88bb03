"""What an adapter holds is applied, tensor by tensor, or the adapter is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.checkpoint import Checkpoint, expected_tensors, open_checkpoint
from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.runtime.errors import CheckpointError
from tests.adapters import (
    TOLERANCE,
    TOWER,
    TRAINED_TOWER,
    WEIGHTS,
    edit,
    load_base,
    logits,
    merged_tensors,
    model_tensors,
    opened,
    our_logits,
    rewrite,
    write_adapter,
    write_mobilevlm_adapter,
)
from tests.artifacts import ArtifactCache
from tests.reference.checkpoints import write_random_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TRAINED = "non_lora_trainables.bin"
QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def checkpoint(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.checkpoint("text")


@pytest.fixture(scope="module")
def written(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_adapter(checkpoint, folder, target_modules=["q_proj", "v_proj"])
    return folder


@pytest.fixture
def adapter(written: Path, tmp_path: Path) -> Path:
    """An adapter of its own, which a test may spoil."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in written.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def assert_equal(found: Checkpoint, checkpoint: Path, expected: dict[str, torch.Tensor]) -> int:
    """Ask that every tensor is as expected; return how many differ from the checkpoint's."""
    plain, changed = open_checkpoint(checkpoint), 0
    for name in expected_tensors(read_config(checkpoint)):
        value = found.read(name)
        np.testing.assert_allclose(value, expected[name], atol=TOLERANCE, err_msg=name)
        changed += not np.array_equal(value, plain.read(name))
    found.check_adapter_used()
    return changed


# --- tower and projector ------------------------------------------------------------------------

# Layer 2 is not computed: the features are those of the layer before.
TOWER_QUERIES = r".*encoder\.layers\.[01]\.self_attn\.q_proj"
PARTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "tower of a V1": ("ldpnet", {"target_modules": TOWER_QUERIES}, 2),
    "tower of a V2": ("ldpnetv2", {"target_modules": TOWER_QUERIES, "use_dora": True}, 2),
    "embeddings of a tower": (
        "ldpnet",
        {"target_modules": ["position_embedding", "patch_embedding"]},
        2,
    ),
    "whole norm of a V1's tower": (
        "ldpnet",
        {"target_modules": ["mlp.1"], "modules_to_save": ["pre_layrnorm"]},
        3,
    ),
    "linear layers of a projector": ("mlp2x_gelu", {"target_modules": r".*mm_projector\.[02]"}, 2),
    "convolutions of a projector": (
        "ldpnet",
        {"target_modules": r".*mb_block\.[12]\.block\.(1\.fc1|1\.fc2|2\.0)"},
        6,
    ),
    "DoRA of convolutions": (
        "ldpnet",
        {"target_modules": r".*(mb_block\.1\.block\.2\.0|patch_embedding)", "use_dora": True},
        2,
    ),
    "trained biases of the layers": (
        "mlp2x_gelu",
        {"target_modules": r".*mm_projector\.[02]", "bias": "lora_only"},
        4,
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_tower_and_projector_as_peft_merges_them(
    artifact_cache: ArtifactCache, tmp_path: Path, part: str
) -> None:
    family, options, count = PARTS[part]
    checkpoint = artifact_cache.checkpoint(family)
    expected = merged_tensors(write_mobilevlm_adapter(checkpoint, tmp_path, **options))
    assert assert_equal(opened(checkpoint, tmp_path), checkpoint, expected) == count


@pytest.mark.parametrize("family", ["ldpnet", "ldpnetv2"])
@pytest.mark.parametrize("prefix", ["base_model.model.", "", "model."])
def test_tensors_trained_outside_the_pairs_are_taken(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str, prefix: str
) -> None:
    """Tower, projector and head in `non_lora_trainables.bin`, by the names that trainings write."""
    checkpoint = artifact_cache.checkpoint(family)
    write_mobilevlm_adapter(checkpoint, tmp_path, target_modules=["self_attn.o_proj"])
    shapes = expected_tensors(read_config(checkpoint))
    tensors = {
        f"{TRAINED_TOWER}pre_layrnorm.bias": "vision_tower.vision_model.pre_layrnorm.bias",
        "model.norm.weight": "model.norm.weight",
    }
    new = {name: torch.randn(shapes[ours]) for name, ours in tensors.items()}
    torch.save({f"{prefix}{name}": tensor for name, tensor in new.items()}, tmp_path / TRAINED)
    found = opened(checkpoint, tmp_path)
    for name, ours in tensors.items():
        np.testing.assert_array_equal(found.read(ours), new[name])


def test_a_depthwise_convolution_is_refused(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnetv2")
    options = {"target_modules": ["peg.0"], "r": 256}
    write_mobilevlm_adapter(checkpoint, tmp_path, **options)
    with pytest.raises(CheckpointError, match=r"peg\.peg\.0 is of a convolution by groups"):
        opened(checkpoint, tmp_path)


# --- layers that are never computed -------------------------------------------------------------


@pytest.mark.parametrize("family", ["ldpnet", "ldpnetv2"])
def test_layers_that_are_never_computed(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str
) -> None:
    """peft gives the tower's last layer pairs too. No gradient reaches it, so B stays zero."""
    checkpoint = artifact_cache.checkpoint(family)
    targets = r".*encoder\.layers\.\d\.self_attn\.q_proj"
    expected = merged_tensors(write_mobilevlm_adapter(checkpoint, tmp_path, target_modules=targets))
    with pytest.raises(CheckpointError, match=r"never computes.*layers\.2\.self_attn\.q_proj"):
        opened(checkpoint, tmp_path)
    rewrite(tmp_path, lambda t: [t[n].zero_() for n in t if "layers.2" in n and "lora_B" in n])
    assert assert_equal(opened(checkpoint, tmp_path), checkpoint, expected) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["ldpnet", "ldpnetv2"])
def test_a_whole_tower_that_was_trained(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    """Its last layer and norm are in the file as well, as they are in the checkpoint."""
    checkpoint = artifact_cache.checkpoint(family)
    write_mobilevlm_adapter(checkpoint, tmp_path, target_modules=["self_attn.o_proj"])
    tower = {}
    for name, tensor in model_tensors(checkpoint).items():
        if name.startswith(TRAINED_TOWER):
            is_computed = "layers.2" not in name and "post_layernorm" not in name
            trained = tensor * 1.1 if is_computed else tensor
            tower[f"base_model.model.{name}"] = trained.to(dtype)
    torch.save(tower, tmp_path / TRAINED)
    found = opened(checkpoint, tmp_path)
    name = "encoder.layers.1.mlp.fc1.weight"
    np.testing.assert_array_equal(
        found.read(f"{TOWER}{name}").astype(np.float32),
        tower[f"base_model.model.{TRAINED_TOWER}{name}"].float(),
    )
    tower[f"base_model.model.{TRAINED_TOWER}post_layernorm.bias"] += 1
    torch.save(tower, tmp_path / TRAINED)
    with pytest.raises(CheckpointError, match=r"never computes.*post_layernorm\.bias"):
        opened(checkpoint, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "text_model.encoder.layers.0.self_attn.q_proj.weight",
        "logit_scale",
        f"{TRAINED_TOWER}embeddings.position_ids",
        f"{TRAINED_TOWER}encoder.layers.7.layer_norm1.bias",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "lm_head.bias",
    ],
)
def test_excess_of_a_checkpoint_is_no_excess_of_an_adapter(
    artifact_cache: ArtifactCache, tmp_path: Path, name: str
) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnet")
    write_mobilevlm_adapter(checkpoint, tmp_path, target_modules=["self_attn.o_proj"])
    rewrite(tmp_path, lambda t: t.update({f"base_model.model.{name}": torch.ones(4)}))
    with pytest.raises(CheckpointError, match=re.escape(name.replace(TRAINED_TOWER, TOWER))):
        opened(checkpoint, tmp_path)


# --- tied models --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tied") / "tied"
    return write_random_checkpoint(place, "text", seed=3, tie_word_embeddings=True)


@pytest.mark.parametrize("tying", [False, True])
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"target_modules": ["lm_head"]}, "lm_head"),
        ({"target_modules": ["embed_tokens"]}, "model.embed_tokens"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "lm_head"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, "embed_tokens"),
    ],
)
def test_one_of_two_tied_tables_is_refused(
    tied: Path, tmp_path: Path, options: dict[str, Any], names: str, tying: bool
) -> None:
    write_adapter(tied, tmp_path, **options, ensure_weight_tying=tying)
    with pytest.raises(CheckpointError, match=f"{names}.weight.*Untie the checkpoint"):
        opened(tied, tmp_path)


def test_untying_as_the_message_says(tied: Path, tmp_path: Path) -> None:
    """peft's own merging of this adapter changes both tables, and computes something else."""
    made = write_adapter(tied, tmp_path / "adapter", target_modules=["lm_head"])
    trained = logits(made)
    untied = tmp_path / "untied"
    untied.mkdir()
    for file in tied.iterdir():
        (untied / file.name).write_bytes(file.read_bytes())
    tensors = load_file(untied / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, untied / "model.safetensors")
    text = (untied / "config.json").read_text()
    (untied / "config.json").write_text(text.replace('embeddings": true', 'embeddings": false'))
    assert float((our_logits(untied, tmp_path / "adapter") - trained).abs().max()) < 1e-4


def test_the_decoder_of_a_tied_model(tied: Path, tmp_path: Path) -> None:
    made = write_adapter(tied, tmp_path, target_modules=["q_proj", "up_proj"])
    expected = dict(made.merge_and_unload().state_dict())
    assert assert_equal(opened(tied, tmp_path), tied, expected) == 4


def test_a_tied_table_that_was_trained_itself(tied: Path, tmp_path: Path) -> None:
    """`non_lora_trainables.bin` holds the model's own tensors, of which the head is one."""
    write_adapter(tied, tmp_path, target_modules=["q_proj"])
    table = torch.randn(load_base(tied).model.embed_tokens.weight.shape)
    name = "model.embed_tokens.weight"
    torch.save({f"base_model.model.{name}": table}, tmp_path / TRAINED)
    np.testing.assert_array_equal(opened(tied, tmp_path).read(name), table)


# --- tensors that contradict ---------------------------------------------------------------------


def first(tensors: dict[str, torch.Tensor], part: str) -> str:
    return next(name for name in sorted(tensors) if part in name)


def with_magnitudes(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "lora_B" in name]:
        plain = name.replace("lora_B.weight", "lora_magnitude_vector")
        tensors[plain] = torch.ones(len(tensors[name]))


def reshape(part: str, *shape: int) -> Callable[[Path], object]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[first(tensors, part)] = torch.ones(shape)

    return lambda folder: rewrite(folder, change)


def add(name: str, value: torch.Tensor) -> Callable[[Path], object]:
    return lambda folder: rewrite(folder, lambda tensors: tensors.update({name: value}))


def as_embedding(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[re.sub(r"lora_([AB])\.weight", r"lora_embedding_\1", name)] = tensors.pop(name)


PREFIX = "base_model.model."
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tensor": (
        lambda a: rewrite(a, lambda t: t.clear()),
        "changes nothing.*found no tensor.*ZeRO-3",
    ),
    "no tensor but one trained besides": (
        lambda a: (
            rewrite(a, lambda t: t.clear()),
            torch.save({f"{PREFIX}model.norm.weight": torch.ones(128)}, a / TRAINED),
        ),
        "changes nothing",
    ),
    "tensors of training alone": (
        lambda a: (
            edit(a, velora_config={"num_groups": 4}),
            rewrite(a, lambda t: (t.clear(), t.update({"x.lora_velora_embed": torch.ones(4)}))),
        ),
        "changes nothing.*found x.lora_velora_embed",
    ),
    "tensors of a variant that is not on": (
        add("x.lora_velora_embed", torch.ones(4)),
        "lora_velora_embed is of an unknown kind",
    ),
    "a diagonal": (add(f"{PREFIX}{QUERY}.lora_diag", torch.ones(4)), "lora_diag is of an unknown"),
    "an adapter's name within": (
        add(f"{PREFIX}{QUERY}.lora_A.default.weight", torch.ones(4, 128)),
        "unknown kind",
    ),
    "a bias of B": (add(f"{PREFIX}{QUERY}.lora_B.bias", torch.ones(128)), "unknown kind"),
    "a wrapped module": (
        add(f"{PREFIX}lm_head.modules_to_save.default.weight", torch.ones(384, 128)),
        "unknown kind",
    ),
    "A is a scalar": (reshape("lora_A"), "not a pair of matrices.*found a scalar and 128x4"),
    "B is a scalar": (reshape("lora_B"), "not a pair of matrices.*found 4x128 and a scalar"),
    "A is a vector": (reshape("lora_A", 4), "not a pair of matrices"),
    "A has no rows": (reshape("lora_A", 0, 128), "not a pair of matrices.*ZeRO-3"),
    "B has no rows": (reshape("lora_B", 0, 4), "not a pair of matrices.*ZeRO-3"),
    "A has three axes": (reshape("lora_A", 4, 128, 1), "not a pair of matrices"),
    "B has five axes": (reshape("lora_B", 128, 4, 1, 1, 1), "not a pair of matrices"),
    "B has another rank": (reshape("lora_B", 128, 3), "not a pair of matrices"),
    "integers": (
        lambda a: rewrite(a, lambda t: t.update({n: v.int() for n, v in t.items()})),
        "unsupported dtypes.*I32",
    ),
    "a name without end": (add("a." * 300, torch.ones(1)), "too long a name.*found 600"),
    "two tensors for one": (
        add(f"{QUERY}.lora_A.weight", torch.ones(4, 128)),
        "two tensors for model.layers.0.self_attn.q_proj.lora_A.weight",
    ),
    "trained and saved": (
        lambda a: (
            add(f"{PREFIX}lm_head.weight", torch.ones(384, 128))(a),
            torch.save({f"{PREFIX}lm_head.weight": torch.ones(384, 128)}, a / TRAINED),
        ),
        "two tensors for lm_head.weight",
    ),
    "trained twice": (
        lambda a: torch.save(
            {name: torch.ones(128) for name in ("model.norm.weight", "model.model.norm.weight")},
            a / TRAINED,
        ),
        "two tensors for model.norm.weight",
    ),
    "trained integers": (
        lambda a: torch.save({"model.norm.weight": torch.ones(128).long()}, a / TRAINED),
        "unsupported dtypes.*int64",
    ),
    "trained of another model": (
        lambda a: torch.save({"model.norm.weight": torch.ones(64)}, a / TRAINED),
        "another model: its model.norm.weight: expected 128, found 64",
    ),
    "DoRA without magnitudes": (lambda a: edit(a, use_dora=True), "use_dora.* is true.*none of"),
    "magnitudes without DoRA": (
        lambda a: rewrite(a, with_magnitudes),
        "use_dora.* is false.*expected no lora_magnitude_vector",
    ),
    "a magnitude too few": (
        lambda a: (
            edit(a, use_dora=True),
            rewrite(a, with_magnitudes),
            rewrite(a, lambda t: t.pop(first(t, "magnitude"))),
        ),
        "none of model.layers.0.self_attn.q_proj. ",
    ),
    "a magnitude too short": (
        lambda a: (
            edit(a, use_dora=True),
            rewrite(a, with_magnitudes),
            reshape("magnitude", 64)(a),
        ),
        "magnitude vector of.*expected 128, found 64",
    ),
    "a magnitude that is a matrix": (
        lambda a: (
            edit(a, use_dora=True),
            rewrite(a, with_magnitudes),
            reshape("magnitude", 16, 8)(a),
        ),
        "magnitude vector of.*expected 128, found 16x8",
    ),
    "another module than is named": (
        lambda a: edit(a, target_modules=["q_proj"]),
        "not what its configuration says.*v_proj",
    ),
    "an excluded module": (
        lambda a: edit(a, exclude_modules=["model.layers.1.self_attn.v_proj"]),
        r"configuration says.*found model\.layers\.1\.self_attn\.v_proj\. ",
    ),
    "another layer than is named": (
        lambda a: edit(a, layers_to_transform=[1]),
        r"configuration says.*layers\.0\.self_attn\.q_proj",
    ),
    "another list than is named": (
        lambda a: edit(a, layers_to_transform=[0, 1], layers_pattern=["h"]),
        "configuration says",
    ),
    "a saved module is absent": (
        lambda a: edit(a, modules_to_save=["lm_head"]),
        "no tensor of what `modules_to_save` names: found lm_head",
    ),
    "a pair within a saved module": (
        lambda a: edit(a, modules_to_save=["self_attn"]),
        "pairs of modules that it does not give any",
    ),
    "an embedding's pair of a linear layer": (
        lambda a: rewrite(a, as_embedding),
        "another model: its change of .* is that of an embedding",
    ),
    "a linear layer's pair of the embedding": (
        lambda a: (
            edit(a, target_modules=None),
            add(f"{PREFIX}model.embed_tokens.lora_A.weight", torch.ones(4, 128))(a),
            add(f"{PREFIX}model.embed_tokens.lora_B.weight", torch.ones(384, 4))(a),
        ),
        "another model: its change of .* is not that of an embedding",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_tensors_that_are_refused(checkpoint: Path, adapter: Path, name: str) -> None:
    change, message = BAD[name]
    change(adapter)
    with pytest.raises(CheckpointError, match=message):
        opened(checkpoint, adapter)


def test_the_unchanged_adapter_is_accepted(checkpoint: Path, adapter: Path) -> None:
    assert (adapter / WEIGHTS).is_file() and opened(checkpoint, adapter).files()


# --- roads that do not take all of a checkpoint --------------------------------------------------


def test_onnx_holds_no_decoder(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnet")
    write_mobilevlm_adapter(checkpoint, tmp_path, target_modules=["self_attn.o_proj"])
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=r"not taken from the checkpoint here.*o_proj"):
        convert(checkpoint, tmp_path / "out", Conversion("onnx"), adapter=tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_onnx_takes_the_place_of_the_projector(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint, graph = artifact_cache.checkpoint("ldpnet"), tmp_path / "graph"
    graph.mkdir()
    convert(checkpoint, graph, Conversion("onnx"))
    (tmp_path / "adapter").mkdir()
    write_mobilevlm_adapter(checkpoint, tmp_path / "adapter", target_modules=["mlp.1"])
    job = plan_job(checkpoint, adapter=tmp_path / "adapter", vision_onnx=graph / "vision.onnx")
    with pytest.raises(CheckpointError, match=r"not taken from the checkpoint here.*mm_projector"):
        compile_job(job, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_an_unread_part_of_an_adapter_is_reported(checkpoint: Path, adapter: Path) -> None:
    found = opened(checkpoint, adapter)
    for layer in range(2):
        found.read(f"model.layers.{layer}.self_attn.q_proj.weight")
    with pytest.raises(
        CheckpointError, match=r"not merged as a whole.*layers\.0\.self_attn\.v_proj"
    ):
        found.check_adapter_used()
