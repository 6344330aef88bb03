"""What `adapter_config.json` says, checked key by key: how each change is scaled, and of what."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from mvlm.models.checkpoint.adapter.keys import (
    CHANGING_STARTS,
    HARMLESS,
    MERGE,
    PLAIN_STARTS,
    REFUSED,
    USED,
)
from mvlm.models.checkpoint.adapter.selection import (
    MAX_NAMES,
    Selection,
    endings,
    read_selection,
)
from mvlm.models.json_config import JsonConfig, check_number, short_repr
from mvlm.runtime.errors import ConfigError

# Beyond any adapter: ranks are at most a layer's width, and alphas are about as large.
MAX_RANK = 1 << 16
MAX_ALPHA = float(1 << 20)
_BIASES = ("none", "all", "lora_only")
_MODULE = re.compile(r"[\w.]+")

Value = TypeVar("Value")


@dataclass(frozen=True)
class LoraOptions:
    """The part of an adapter's configuration that its merged weights depend on.

    Attributes:
        rank: Of the pairs that `ranks` does not name; 1 to 65536.
        alpha: Of the pairs that `alphas` does not name.
        ranks: Ranks by the names of modules, `^` before a whole name, each with its place in the
            table: the first that fits counts.
        alphas: Alphas in the same way.
        is_rank_stabilized: Whether alpha is divided by the root of the rank (arXiv 2312.03732).
        has_magnitudes: Whether every pair has a magnitude vector: DoRA (arXiv 2402.09353).
        whole_modules: Parts of the names of modules that are saved whole.
        selection: Which modules have pairs.
        training_only: Parts of the names of tensors that are used in training alone.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, tuple[int, int]]
    alphas: Mapping[str, tuple[int, float]]
    is_rank_stabilized: bool
    has_magnitudes: bool
    whole_modules: tuple[str, ...]
    selection: Selection
    training_only: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        """The rank that a module's pair must have."""
        return _first(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What a module's product B A is multiplied by."""
        rank, alpha = self.rank_of(module), _first(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilized else rank)


def read_options(config: JsonConfig) -> LoraOptions:
    """Read `adapter_config.json`.

    Raises:
        ConfigError: A value is of the wrong type or out of range; or the adapter is of another
            method than LoRA, of a variant that is not supported, or has a key that is not known.
    """
    _check_method(config)
    _check_keys(config)
    _check_start(config)
    if config.get("bias", "none") not in _BIASES:
        config.refuse("bias", " or ".join(map(repr, _BIASES)))
    return LoraOptions(
        rank=config.integer("r", 1, MAX_RANK),
        alpha=_alpha(config, "lora_alpha"),
        ranks={
            name: (place, patterns.integer(name, 1, MAX_RANK))
            for patterns in _patterns(config, "rank_pattern")
            for place, name in enumerate(patterns.values)
        },
        alphas={
            name: (place, _alpha(patterns, name))
            for patterns in _patterns(config, "alpha_pattern")
            for place, name in enumerate(patterns.values)
        },
        is_rank_stabilized=config.flag("use_rslora", False),
        has_magnitudes=config.flag("use_dora", False),
        whole_modules=config.names("modules_to_save", MAX_NAMES),
        selection=read_selection(config),
        training_only=_training_only(config),
    )


def _check_method(config: JsonConfig) -> None:
    method = config.get("peft_type", "LORA")
    if method != "LORA":
        raise ConfigError(
            f"{config.name}: adapters of the kind {short_repr(method)} are not supported",
            expected="`peft_type` 'LORA'",
            found=short_repr(method),
            fix=MERGE,
        )


def _check_keys(config: JsonConfig) -> None:
    """Refuse what is on and changes the meaning, and what is not known.

    A key that is not known passes if it is null, false, 0 or empty. peft writes every option that
    it knows, and the test of its `LoraConfig` sees to it that this is how it writes one that is
    off; without this rule every adapter of a newer peft would be refused.
    """
    for key, value in config.values.items():
        if key in USED or key in HARMLESS or _is_off(value):
            continue
        meaning, fix = REFUSED.get(key, ("this key is not known to mvlm", MERGE))
        _refuse(config, key, f"null, false or empty: {meaning}", fix)


def _is_off(value: object) -> bool:
    return value is None or value is False or value in (0, "", [], {})


def _check_start(config: JsonConfig) -> None:
    """Ask that training began at the checkpoint's own weights."""
    key = "init_lora_weights"
    value = config.get(key, True)
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in PLAIN_STARTS):
        return
    plain = " or ".join(("true", "false", *map(repr, sorted(PLAIN_STARTS))))
    start = value.lower().split("_niter_")[0] if isinstance(value, str) else ""
    if start in CHANGING_STARTS:
        plain += f", since {start} changes the base model's weights before it trains"
    _refuse(config, key, plain, CHANGING_STARTS.get(start, MERGE))


def _training_only(config: JsonConfig) -> tuple[str, ...]:
    """Variants of training whose forward pass afterwards is a plain LoRA's."""
    names = {
        "velora_config": (".lora_velora_embed",),
        "monteclora_config": tuple(
            f".lora_monteclora_sampler.{name}"
            for name in (
                "expert_weights",
                "expert_weights_prior",
                "gaussian_var_prior",
                "std_prior",
            )
        ),
    }
    return tuple(suffix for key, found in names.items() if key in config for suffix in found)


def _alpha(config: JsonConfig, key: str) -> float:
    value = config.require(key)
    config.build(check_number, key=key, value=value, low=-MAX_ALPHA, high=MAX_ALPHA)
    return float(value)


def _patterns(config: JsonConfig, key: str) -> list[JsonConfig]:
    """The table under `key`, if it is there.

    peft takes regular expressions. Names are what it writes there by itself, and an expression
    from elsewhere could keep us busy for ever.
    """
    if key not in config:
        return []
    patterns = config.section(key)
    for pattern in patterns.values:
        if not _MODULE.fullmatch(pattern.removeprefix("^")):
            patterns.refuse(pattern, "the name of a module, not another regular expression")
    return [patterns]


def _first(patterns: Mapping[str, tuple[int, Value]], module: str, default: Value) -> Value:
    """The value of the first name that is a module's last parts, or with `^` the whole of it."""
    names = (f"^{module}", *endings(module))
    found = [patterns[name] for name in names if name in patterns]
    return min(found, key=lambda placed: placed[0])[1] if found else default


def _refuse(config: JsonConfig, key: str, expected: str, fix: str | None) -> NoReturn:
    raise ConfigError(
        f"{config.name}: `{key}`", expected=expected, found=short_repr(config.values[key]), fix=fix
    )
