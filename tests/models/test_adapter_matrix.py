"""Every way to begin a LoRA and every variant that the installed peft knows: equal, or refused.

The cases are taken from peft's own definitions, so that what a newer peft adds fails here until
somebody has decided about it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import peft
import pytest
import torch
from peft.tuners.lora import config as lora
from peft.tuners.lora import loraga
from peft.tuners.lora.layer import LoraLayer

from mvlm.models.checkpoint import open_checkpoint
from mvlm.runtime.errors import ConfigError
from tests.adapters import (
    load_base,
    logits,
    our_logits,
    train,
    write_adapter,
)
from tests.artifacts import ArtifactCache

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning"),
]
QUERIES: dict[str, Any] = {"target_modules": ["q_proj", "down_proj"]}
# Logits are up to ten; sums in another order move them by less than the first of these, and an
# adapter by far more than the second.
NEAR, FAR = 1e-4, 0.05
IDS = torch.tensor([[1, 5, 9, 300, 17, 5, 2]])


@pytest.fixture(scope="module")
def checkpoint(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.checkpoint("text")


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max())


def peft_logits(checkpoint: Path, adapter: Path) -> torch.Tensor:
    """What peft computes when it has loaded and merged an adapter."""
    model = peft.PeftModel.from_pretrained(load_base(checkpoint), adapter)
    return logits(model.merge_and_unload())


# --- how A and B begin --------------------------------------------------------------------------

PLAIN = (True, False, "gaussian", "eva", "orthogonal", "mica")
CHANGING = ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")


def starts_of_peft() -> set[object]:
    """What `init_lora_weights` may be: by its type, and by the code that looks at it."""
    found: set[object] = set()
    for part in get_args(get_type_hints(peft.LoraConfig)["init_lora_weights"]):
        found |= {True, False} if part is bool else set()
        found |= set(get_args(part)) if get_origin(part) is Literal else set()
    for method in (LoraLayer.update_layer, LoraLayer.reset_lora_parameters):
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
            if isinstance(node, ast.Compare | ast.Call) and "init_lora_weights" in (
                ast.unparse(node.left if isinstance(node, ast.Compare) else node.func)
            ):
                parts = node.comparators if isinstance(node, ast.Compare) else node.args
                found |= {part.value for part in parts if isinstance(part, ast.Constant)}
    return found - {"pissa_niter_[number of iters]"} | {"pissa_niter_4"}


def prepare(model: Any, config: peft.LoraConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what some ways ask for before the adapter is made."""

    def backward() -> None:
        model(IDS, labels=IDS).loss.backward()

    if config.init_lora_weights == "corda":
        # peft's own preparation imports a package that it does not require. With a covariance of
        # one, what it leaves is the decomposition of the weights themselves.
        for name, module in model.named_modules():
            if name.endswith(("q_proj", "down_proj")):
                u, s, vh = torch.linalg.svd(module.weight.detach(), full_matrices=False)
                module.eigens = SimpleNamespace(
                    U_WC=u[:, : config.r], S_WC=s[: config.r].clone(), V_WC=vh[: config.r].T
                )
    if config.init_lora_weights == "lora_ga":
        loraga.preprocess_loraga(model, config, backward)

    # The real one takes CUDA. What matters is that peft takes the rounded weights for the base.
    def rounded(weight: torch.Tensor, reduced_rank: int, **_: Any) -> tuple[torch.Tensor, ...]:
        rows, columns = weight.shape
        return (
            (weight * 8).round() / 8,
            torch.randn(reduced_rank, columns),
            torch.randn(rows, reduced_rank),
        )

    monkeypatch.setattr("peft.tuners.lora.layer.loftq_init", rounded)


def started(
    checkpoint: Path, start: object, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Make an adapter in one of the ways; return its model, and the base's weights before."""
    options: dict[str, Any] = {"init_lora_weights": start}
    if start == "loftq":
        options["loftq_config"] = lora.LoftQConfig(loftq_bits=8)
    if start == "lora_ga":
        options["lora_ga_config"] = lora.LoraGAConfig()
    if start == "corda":
        options["corda_config"] = lora.CordaConfig()
    config = peft.LoraConfig(r=4, lora_alpha=6, **QUERIES, **options)
    model = load_base(checkpoint)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepare(model, config, monkeypatch)
    made = peft.get_peft_model(model, config)
    if start == "eva":
        # Of the inputs' directions EVA keeps as many as explain them: ranks of their own, or none.
        modules = (n for n, m in made.named_modules() if isinstance(m, LoraLayer))
        directions = {
            name: torch.eye(made.get_submodule(name).in_features)[:rank]
            for name, rank in zip(modules, (2, 6, 0, 4), strict=True)
        }
        peft.initialize_lora_eva_weights(made, eva_state_dict=directions)
    return made, before


def changed_base(made: Any, before: dict[str, torch.Tensor]) -> bool:
    """Whether any of the base's weights is another one now."""
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in made.state_dict().items()
    }
    return any(not torch.equal(after[name], tensor) for name, tensor in before.items())


def test_all_starts_of_the_installed_peft_are_decided() -> None:
    assert starts_of_peft() == {*PLAIN, *CHANGING}


@pytest.mark.parametrize("start", PLAIN)
def test_a_start_that_leaves_the_base_equals_peft(
    checkpoint: Path, tmp_path: Path, start: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, before = started(checkpoint, start, monkeypatch)
    assert not changed_base(made, before)
    train(made)
    made.save_pretrained(tmp_path)
    ours = our_logits(checkpoint, tmp_path)
    assert difference(ours, logits(made)) < NEAR
    assert difference(ours, peft_logits(checkpoint, tmp_path)) < NEAR
    assert difference(ours, logits(load_base(checkpoint))) > FAR


@pytest.mark.parametrize("start", CHANGING)
def test_a_start_that_changes_the_base_is_refused(
    checkpoint: Path, tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, before = started(checkpoint, start, monkeypatch)
    assert changed_base(made, before)
    made.save_pretrained(tmp_path)
    kind = start.split("_niter_")[0]
    with pytest.raises(ConfigError, match=f"init_lora_weights.*{kind} changes the base.*{start}"):
        open_checkpoint(checkpoint, adapter=tmp_path)


@pytest.mark.parametrize("start", ["pissa", "olora", "corda", "lora_ga"])
def test_the_way_to_convert_that_the_message_names(
    checkpoint: Path, tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = started(checkpoint, start, monkeypatch)
    made.peft_config["default"].init_lora_weights = True
    made.save_pretrained(tmp_path / "start")
    made.peft_config["default"].init_lora_weights = start
    train(made)
    trained = logits(made)
    made.save_pretrained(
        tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    assert difference(our_logits(checkpoint, tmp_path / "plain"), trained) < NEAR


# --- variants -----------------------------------------------------------------------------------

# What each variant's key is set to, and whether merging it is understood.
VARIANTS: dict[str, tuple[Any, bool]] = {
    "use_dora": (True, True),
    "velora_config": (lora.VeloraConfig(num_groups=4), True),
    "monteclora_config": (lora.MontecloraConfig(num_samples=2, buffer_size=4), True),
    "alora_invocation_tokens": ([5, 9], False),
    "use_bdlora": (
        lora.BdLoraConfig(target_modules_bd_b=["q_proj", "down_proj"], nblocks=2),
        False,
    ),
    "arrow_config": (lora.ArrowConfig(), False),
    "kasa_config": (lora.KasaConfig(), False),
}
# Keys that are no variants to peft, but change what is computed or which tensors there are.
OTHERS: dict[str, tuple[Any, bool]] = {
    "use_rslora": (True, True),
    "bias": ("all", True),
    "exclude_modules": (["layers.0.self_attn.q_proj"], True),
    "layers_to_transform": ([1], True),
    "layers_pattern": ("layers", True),
    "rank_pattern": ({"q_proj": 2, "layers.1.mlp.down_proj": 7}, True),
    "alpha_pattern": ({"^model.layers.0.self_attn.q_proj": 3.5, "down_proj": 1}, True),
    "modules_to_save": (["lm_head", "norm"], True),
    "ensure_weight_tying": (True, True),
    "lora_dropout": (0.5, True),
    "qalora_group_size": (8, True),
    "loftq_config": ({}, True),
    "eva_config": (lora.EvaConfig(), True),
    "corda_config": (lora.CordaConfig(), True),
    "lora_ga_config": (lora.LoraGAConfig(), True),
    "megatron_core": ("megatron.other", True),
    "runtime_config": (lora.LoraRuntimeConfig(), True),
    "fan_in_fan_out": (True, False),
    "use_qalora": (True, False),
    "lora_bias": (True, False),
    "target_parameters": (["o_proj.weight"], False),
    "trainable_token_indices": ([1, 3], False),
    "layer_replication": ([[0, 2], [0, 2]], False),
    "megatron_config": ({"hidden_size": 128}, False),
}
# What every case has, or `init_lora_weights` and the table of methods below have.
ALWAYS = {
    "r",
    "lora_alpha",
    "target_modules",
    "init_lora_weights",
    "peft_type",
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
}
UNDERSTOOD = {key: value for key, (value, good) in (VARIANTS | OTHERS).items() if good}
NOT_UNDERSTOOD = {key: value for key, (value, good) in (VARIANTS | OTHERS).items() if not good}


def test_all_keys_of_the_installed_peft_are_decided() -> None:
    fields = dataclasses.fields(peft.LoraConfig)
    variants = {field.name for field in fields if field.metadata.get("is_lora_variant")}
    assert variants == VARIANTS.keys()
    assert {field.name for field in fields} == ALWAYS | VARIANTS.keys() | OTHERS.keys()


@pytest.mark.parametrize("key", UNDERSTOOD)
def test_a_key_that_is_understood_equals_peft(checkpoint: Path, tmp_path: Path, key: str) -> None:
    options = QUERIES | {key: UNDERSTOOD[key]}
    if key == "layers_pattern":
        options["layers_to_transform"] = 0
    made = write_adapter(checkpoint, tmp_path, **options)
    ours = our_logits(checkpoint, tmp_path)
    assert difference(ours, logits(made)) < NEAR
    assert difference(ours, peft_logits(checkpoint, tmp_path)) < NEAR
    assert difference(ours, logits(load_base(checkpoint))) > FAR


@pytest.mark.parametrize("key", NOT_UNDERSTOOD)
def test_a_key_that_is_not_understood_is_refused(
    checkpoint: Path, tmp_path: Path, key: str
) -> None:
    """With the configuration that peft writes; it is refused before the tensors are looked at."""
    write_adapter(checkpoint, tmp_path, **QUERIES)
    config = peft.LoraConfig(**QUERIES | {key: NOT_UNDERSTOOD[key]})
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"`{key}`: expected null, false or empty: .*found"):
        open_checkpoint(checkpoint, adapter=tmp_path)


# --- other methods ------------------------------------------------------------------------------

METHODS = sorted(kind.value for kind in peft.PeftType if kind is not peft.PeftType.LORA)


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_are_refused_by_name(checkpoint: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "adapter_config.json").write_text(f'{{"peft_type": "{method}", "r": 4}}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=f"kind '{method}' are not supported"):
        open_checkpoint(checkpoint, adapter=tmp_path)
