"""`--lora` of `mvlm compile` and `mvlm convert`: what is wrong with an adapter, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.config.read import read_config
from tests.adapters import CONFIG, WEIGHTS, opened, write_mobilevlm_adapter
from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm

PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


def write(folder: Path, config: object, tensors: dict[str, torch.Tensor]) -> None:
    text = json.dumps(config) if isinstance(config, dict) else str(config)
    (folder / CONFIG).write_text(text)
    save_file(tensors, folder / WEIGHTS)


def pair() -> dict[str, torch.Tensor]:
    return {A: torch.ones(2, 128), B: torch.ones(128, 2)}


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "PiSSA": (lambda f: write(f, PLAIN | {"init_lora_weights": "pissa"}, pair()), "Convert it"),
    "activated LoRA": (
        lambda f: write(f, PLAIN | {"alora_invocation_tokens": [1]}, pair()),
        "`alora_invocation_tokens`",
    ),
    "no tensor": (lambda f: write(f, PLAIN, {}), "changes nothing"),
    "no tensor in a PyTorch file": (
        lambda f: (
            (f / CONFIG).write_text(json.dumps(PLAIN)),
            torch.save({}, f / "adapter_model.bin"),
        ),
        "changes nothing",
    ),
    "a scalar": (
        lambda f: write(f, PLAIN, pair() | {A: torch.tensor(1.0)}),
        "not a pair of matrices",
    ),
    "a rank of zero": (
        lambda f: write(f, PLAIN | {"r": 0}, {A: torch.ones(0, 128), B: torch.ones(128, 0)}),
        "`r` is not usable",
    ),
    "an alpha of 401 digits": (
        lambda f: write(f, json.dumps(PLAIN).replace(": 2}", f": 1{'0' * 400}}}"), pair()),
        "`lora_alpha` is not usable",
    ),
    "DoRA without magnitudes": (
        lambda f: write(f, PLAIN | {"use_dora": True}, pair()),
        "lora_magnitude_vector",
    ),
    "another method": (lambda f: write(f, PLAIN | {"peft_type": "LOHA"}, pair()), "'LOHA'"),
}


@pytest.mark.parametrize("verb", [("compile",), ("convert", "--to", "mlc")], ids=["compile", "mlc"])
@pytest.mark.parametrize("fault", FAULTS)
def test_adapter_fault_is_one_line(
    artifact_cache: ArtifactCache, tmp_path: Path, fault: str, verb: tuple[str, ...]
) -> None:
    make, words = FAULTS[fault]
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    make(adapter)
    name, *options = verb
    model = artifact_cache.checkpoint("text")
    result = mvlm(name, model, *options, "--lora", adapter, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ") and words in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [adapter]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_convert_merges_an_adapter_into_all_parts(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint, adapter = artifact_cache.checkpoint("ldpnet"), tmp_path / "adapter"
    parts = r".*(encoder\.layers\.[01]\.mlp\.fc1|mm_projector\.model\.mlp\.1|self_attn\.o_proj)"
    write_mobilevlm_adapter(checkpoint, adapter, target_modules=parts)
    options = ("--to", "mlc", "--type", "q0f32", "--lora", adapter)
    result = mvlm("convert", checkpoint, *options, "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    merged, after = opened(checkpoint, adapter), open_checkpoint(tmp_path / "out")
    for name in expected_tensors(read_config(checkpoint)):
        np.testing.assert_array_equal(after.read(name), merged.read(name), err_msg=name)
