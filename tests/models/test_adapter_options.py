"""Every key of `adapter_config.json` is read with its type and its bounds, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from mvlm.models.checkpoint.adapter import open_adapter
from mvlm.models.checkpoint.adapter.keys import (
    CHANGING_STARTS,
    HARMLESS,
    PLAIN_STARTS,
    REFUSED,
    USED,
)
from mvlm.models.checkpoint.adapter.options import read_options
from mvlm.models.json_config import JsonConfig
from mvlm.runtime.errors import ConfigError, MvlmError
from tests.adapters import CONFIG, TOLERANCE, WEIGHTS, module_tree, train

# The folder is written anew by each example; how long one takes says nothing.
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # Of patterns that fit no module.
    pytest.mark.filterwarnings("ignore::RuntimeWarning:peft"),
]
GOOD: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj"]}


def read(**changes: Any) -> Any:
    return read_options(JsonConfig("adapter_config.json", GOOD | changes))


# --- the tables of keys --------------------------------------------------------------------------


def test_every_key_of_peft_is_in_one_table() -> None:
    """A newer peft's new key fails here until somebody has decided what it does."""
    tables = (USED, HARMLESS.keys(), REFUSED.keys())
    known = peft.LoraConfig.__dataclass_fields__.keys()
    counts = {key: sum(key in table for table in tables) for key in known}
    assert counts == dict.fromkeys(known, 1)
    # What is in the tables and not in peft: a key of the first versions.
    assert set().union(*tables) - known == {"merge_weights"}


def test_what_peft_does_not_use_it_writes_as_off() -> None:
    """This lets a key that is not known pass when it is null, false, 0 or empty."""
    defaults = peft.LoraConfig().to_dict()
    assert not any(defaults[key] for key in REFUSED)
    assert read(**{key: defaults[key] for key in REFUSED}).rank == 4


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_an_unknown_key_that_is_off(value: object) -> None:
    assert read(of_the_future=value).rank == 4


@pytest.mark.parametrize("value", [True, 1, 0.5, "yes", [0], {"a": None}])
def test_an_unknown_key_that_is_on(value: object) -> None:
    with pytest.raises(ConfigError, match=r"`of_the_future`.*not known to mvlm.*merge_and_unload"):
        read(of_the_future=value)


@pytest.mark.parametrize("key", sorted(HARMLESS))
@pytest.mark.parametrize("value", [None, True, 10**400, "x", {"a": [1]}])
def test_a_key_that_is_harmless_may_be_anything(key: str, value: object) -> None:
    assert read(**{key: value}) == read()


def test_the_documentation_names_every_key_and_start() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    starts = {*PLAIN_STARTS, *CHANGING_STARTS}
    named = USED | HARMLESS.keys() | REFUSED.keys() | starts
    assert {name for name in named if f"`{name}`" not in text} == set()


# --- types and bounds ----------------------------------------------------------------------------

WRONG: list[tuple[str, Any]] = [
    *(("r", value) for value in (None, 0, -1, 2**16 + 1, 10**400, 4.0, "4", True, [4], {})),
    *(
        ("lora_alpha", value)
        for value in (None, 10**400, -(10**400), 1e7, float("nan"), float("inf"), "6", True, [6])
    ),
    *(("use_rslora", value) for value in (1, "true", [])),
    *(("use_dora", value) for value in (1, "true", {})),
    *(("ensure_weight_tying", value) for value in (1, "true")),
    *(("bias", value) for value in (True, "some", ["all"], 1)),
    *(("init_lora_weights", value) for value in (1, 0, "", "unheard", "pissa ", ["eva"], {})),
    *(("modules_to_save", value) for value in ("lm_head", 1, [1], {"a": 1})),
    *(("target_modules", value) for value in (1, [1], {"a": 1}, [None])),
    *(
        (key, ["q_proj"] * 2**15)
        for key in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern")
    ),
    *(("exclude_modules", value) for value in (1, [1], {"a": 1})),
    *(("layers_to_transform", value) for value in (True, -1, 1.0, "1", [1, "1"], [10**400], {})),
    *(("layers_pattern", value) for value in (1, [1], "(a+)+$", ["layers", ".*"])),
    *(("rank_pattern", value) for value in ([1], "q_proj", {"q_proj": 0}, {"q_proj": "4"})),
    *(("rank_pattern", value) for value in ({"q_proj": 10**400}, {"q_proj": None}, {"": 4})),
    *(("rank_pattern", value) for value in ({"(a+)+$": 4}, {"q_proj|v_proj": 4}, {"^": 4})),
    *(("alpha_pattern", value) for value in ([1], {"q_proj": "4"}, {"q_proj": 10**400})),
    *(("alpha_pattern", value) for value in ({"q_proj": float("nan")}, {"(a+)+$": 4})),
    *(("peft_type", value) for value in ("lora", "LORAX", 1, ["LORA"], True)),
    *((key, value) for key in sorted(REFUSED) for value in (True, 1, "x", [1], {"a": 1})),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{k}={v!r:.20}" for k, v in WRONG])
def test_a_wrong_value_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{key: value})
    message = str(caught.value)
    named = [key, *(value if isinstance(value, dict) else ())]
    assert any(f"`{name}`" in message for name in named) and len(message) < 700


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(USED | REFUSED.keys() | {"x"})),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_any_configuration_is_read_or_refused(values: dict[str, Any]) -> None:
    """Whatever stands there: no other error than ours, and what is read is within its bounds."""
    try:
        options = read(**values)
    except MvlmError as error:
        assert str(error)
    else:
        assert 1 <= options.rank <= 2**16 and abs(options.scale_of("a.q_proj")) <= 2**20


# --- ranks, alphas and modules as peft understands them ------------------------------------------

# Two layers of two matrices, and one that is in no layer.
TREE = {
    f"model.layers.{layer}.{name}.weight": torch.randn(6, 5)
    for layer in (0, 1)
    for name in ("attn.q_proj", "mlp.up_proj")
} | {"lm_head.weight": torch.randn(7, 6)}
NAMES = ["q_proj", "up_proj", "attn.q_proj", "layers.1.attn.q_proj", "lm_head", "proj"]
PATTERNS = [*NAMES, "model.layers.0.mlp.up_proj", "^model.layers.0.mlp.up_proj", "^q_proj"]


def written(folder: Path, config: peft.LoraConfig) -> nn.Module | None:
    """Let peft make and write an adapter of the tree; None where it finds nothing to change."""
    try:
        model = peft.get_peft_model(module_tree(TREE), config)
    except ValueError:
        return None
    train(model)
    model.save_pretrained(folder)
    return model


@settings(QUIET, max_examples=60)
@given(
    rank=st.integers(1, 9),
    alpha=st.integers(-4, 40) | st.floats(0.1, 40),
    stabilized=st.booleans(),
    dora=st.booleans(),
    targets=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    excluded=st.lists(st.sampled_from(NAMES), max_size=1),
    layers=st.none() | st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2),
    ranks=st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 9), max_size=3),
    alphas=st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 40), max_size=3),
)
def test_ranks_alphas_and_modules_as_peft_understands_them(
    tmp_path: Path,
    rank: int,
    alpha: float,
    stabilized: bool,
    dora: bool,
    targets: list[str],
    excluded: list[str],
    layers: int | list[int] | None,
    ranks: dict[str, int],
    alphas: dict[str, int],
) -> None:
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        use_rslora=stabilized,
        use_dora=dora,
        target_modules=targets,
        exclude_modules=excluded or None,
        layers_to_transform=layers,
        # Sorted, as the file has them: in another order peft cannot load what it wrote.
        rank_pattern=dict(sorted(ranks.items())),
        alpha_pattern=dict(sorted(alphas.items())),
    )
    made = written(tmp_path, config)
    if made is None:
        return
    # As peft reads it: with the keys of the patterns in the order of the file.
    loaded = peft.PeftModel.from_pretrained(module_tree(TREE), tmp_path)
    expected = loaded.merge_and_unload().state_dict()
    adapter = open_adapter(tmp_path)
    for name, tensor in TREE.items():
        found = adapter.apply(name, tensor.numpy())
        np.testing.assert_allclose(found, expected[name], atol=20 * TOLERANCE, err_msg=name)
    adapter.check_all_read()


@settings(QUIET, max_examples=40)
@given(
    targets=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    excluded=st.lists(st.sampled_from(NAMES), max_size=1),
    layers=st.none() | st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2),
    lists=st.none() | st.sampled_from(["layers", "h", ["layers"], ["h", "layers"]]),
)
def test_pairs_that_peft_would_drop_are_refused(
    tmp_path: Path,
    targets: list[str],
    excluded: list[str],
    layers: int | list[int] | None,
    lists: str | list[str] | None,
) -> None:
    """An adapter of all modules, whose configuration then names some: all of them, or refused."""
    for old in tmp_path.iterdir():
        old.unlink()
    assert written(tmp_path, peft.LoraConfig(target_modules=["q_proj", "up_proj", "lm_head"]))
    values = json.loads((tmp_path / CONFIG).read_text()) | {
        "target_modules": targets,
        "exclude_modules": excluded,
        "layers_to_transform": layers,
        "layers_pattern": lists if layers is not None else None,
    }
    (tmp_path / CONFIG).write_text(json.dumps(values))
    options = read_options(JsonConfig("adapter", values))
    tensors = load_file(tmp_path / WEIGHTS)
    pairs = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in tensors}
    named = {name for name in pairs if options.selection.has(name)}
    config = peft.LoraConfig.from_pretrained(tmp_path)
    try:
        model = peft.get_peft_model(module_tree(TREE), config)
        chosen = {n.split(".lora_")[0] for n, _ in model.named_modules() if n.endswith(".lora_A")}
    except ValueError:
        chosen = set()
    assert named == {name.removeprefix("base_model.model.") for name in chosen}


def test_a_file_of_floats_of_64_bits(tmp_path: Path) -> None:
    assert written(tmp_path, peft.LoraConfig(target_modules=["q_proj"]))
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({name: tensor.double() for name, tensor in tensors.items()}, tmp_path / WEIGHTS)
    with pytest.raises(MvlmError, match=r"unsupported dtypes: expected float32.*float64"):
        open_adapter(tmp_path)
