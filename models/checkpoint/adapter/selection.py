"""Which modules an adapter's configuration gives a pair, as peft decides it.

peft makes pairs for these modules alone and drops the tensors of all others when it loads, so a
pair of any other module is a contradiction. The rules are those of `check_target_module_exists`
in `peft/tuners/tuners_utils.py`. Regular expressions, which peft takes too, are not followed: an
untrusted one could keep us busy for ever. There the tensors alone decide.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise

from mvlm.models.json_config import JsonConfig

# More than any model has.
MAX_NAMES = 1 << 14
_MAX_LAYERS = 1 << 16
_MAX_DIGITS = 9
# The embedding and the output head, which `ensure_weight_tying` gives pairs together.
_TABLES = frozenset({"embed_tokens", "lm_head"})
_PLAIN = re.compile(r"\w+")


@dataclass(frozen=True)
class Selection:
    """Names of modules, each whole or its last parts.

    Attributes:
        targets: Those that have pairs; None where the configuration does not list them.
        excluded: Those of them that do not.
        saved: Modules that are saved whole, with all that is in them: they have no pairs.
        layers: The layers' numbers; None for all.
        lists: The names of the lists that these layers are in; empty for any.
        ties: Whether tables of a tied model have pairs too, named or not.
    """

    targets: frozenset[str] | None
    excluded: frozenset[str]
    saved: frozenset[str]
    layers: frozenset[int] | None
    lists: tuple[str, ...]
    ties: bool

    def has(self, module: str) -> bool:
        """Whether peft gives a module a pair; true where it cannot be told."""
        if _is_named(module, self.excluded) or _is_within(module, self.saved):
            return False
        if self.targets is None or module in self.targets:
            return True
        if self.ties and _is_named(module, _TABLES):
            return True
        return _is_named(module, self.targets) and self._has_layer(module)

    def _has_layer(self, module: str) -> bool:
        if self.layers is None:
            return True
        # A list's name and the number behind it: what has one number is a layer's, and the first.
        parts = module.split(".")
        numbered = [
            (name, int(number))
            for name, number in pairwise(parts[:-1])
            if number.isascii() and number.isdecimal() and len(number) < _MAX_DIGITS
        ]
        for wanted in self.lists or (None,):
            for name, number in numbered:
                if wanted in (None, name):
                    return number in self.layers
        return False


def read_selection(config: JsonConfig) -> Selection:
    """Read the keys that choose modules.

    Raises:
        ConfigError: One is of the wrong type.
    """
    listed = config.get("target_modules")
    is_list = not (listed is None or isinstance(listed, str))
    targets = frozenset(config.names("target_modules", MAX_NAMES)) if is_list else None
    excluded = config.get("exclude_modules")
    if isinstance(excluded, str):
        excluded_names: tuple[str, ...] = ()
    else:
        excluded_names = config.names("exclude_modules", MAX_NAMES)
    lists = _one_or_more(config, "layers_pattern")
    for name in lists:
        if not _PLAIN.fullmatch(name):
            config.refuse("layers_pattern", "the name of a list, not another regular expression")
    return Selection(
        targets=targets,
        excluded=frozenset(excluded_names),
        saved=frozenset(config.names("modules_to_save", MAX_NAMES)),
        layers=_layers(config),
        lists=lists,
        ties=config.flag("ensure_weight_tying", False),
    )


def _layers(config: JsonConfig) -> frozenset[int] | None:
    key = "layers_to_transform"
    value = config.get(key)
    numbers = value if isinstance(value, list) else [value]
    if value is None or not numbers:
        return None
    if not all(type(number) is int and 0 <= number < _MAX_LAYERS for number in numbers):
        config.refuse(key, "numbers of layers")
    return frozenset(numbers)


def _one_or_more(config: JsonConfig, key: str) -> tuple[str, ...]:
    value = config.get(key)
    if isinstance(value, str):
        return (value,) if value else ()
    return config.names(key, MAX_NAMES)


def endings(module: str) -> list[str]:
    """A module's name, and what is behind each of its dots."""
    parts = module.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _is_named(module: str, names: Set[str]) -> bool:
    return any(ending in names for ending in endings(module))


def _is_within(module: str, names: Set[str]) -> bool:
    parts = module.split(".")
    return any(_is_named(".".join(parts[:end]), names) for end in range(1, len(parts) + 1))
