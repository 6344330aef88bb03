"""Reads a checkpoint folder's configuration files."""

from __future__ import annotations

from pathlib import Path

from mvlm.models.config.clip import (
    ClipVisionConfig,
    check_clip_keys,
    clip_vision_config,
    derive_clip_vision_config,
)
from mvlm.models.config.image import image_spec
from mvlm.models.config.key_check import check_keys
from mvlm.models.config.keys import GENERATION, PREPROCESSOR
from mvlm.models.config.llama import llama_config
from mvlm.models.config.mlc import check_checkpoint_keys, checkpoint_document
from mvlm.models.config.mobilevlm import MobileVLMConfig
from mvlm.models.config.projector import ProjectorConfig, parse_projector_type
from mvlm.models.config.text import (
    TOKENIZER_CONFIG,
    TOKENIZER_MODEL,
    generation_config,
    tokenizer_config,
)
from mvlm.models.config.tokens import check_tokenizer_files
from mvlm.models.config.tower import V2_TOWER_PREFIX, find_vision_tower, search_vision_tower
from mvlm.models.json_config import JsonConfig, read_json_config, read_optional_json_config
from mvlm.models.weight_files.open import open_weights
from mvlm.runtime.errors import TokenizerError, UsageError
from mvlm.runtime.input_file import is_present
from mvlm.runtime.tokenizer import Tokenizer

_MODEL_TYPES = ("mobilevlm", "llama")


def read_config(folder: Path, vision_tower: Path | None = None) -> MobileVLMConfig:
    """Read the configuration of a MobileVLM (V1 or V2) or MobileLLaMA checkpoint.

    Args:
        folder: With `config.json`, and where given `generation_config.json`, `tokenizer.model` and
            the tokenizer's JSON files.
        vision_tower: The folder of its CLIP, where :func:`find_vision_tower` would not find it.

    Raises:
        UsageError: `folder` or `vision_tower` is not a folder of that kind.
        ConfigError: A key is absent, not usable, or contradicts another; or no tower was found.
        TokenizerError: `tokenizer.model` is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", expected="the folder of a checkpoint")
    config = checkpoint_document(folder)
    if config.get("model_type", "llama") not in _MODEL_TYPES:
        config.refuse("model_type", " or ".join(_MODEL_TYPES))
    warnings = check_checkpoint_keys(folder)
    fields, said = _text_fields(folder, config)
    warnings += said
    if "mm_vision_tower" not in config:
        text_only = {"vision": None, "projector": None, "image": None}
        fields |= text_only | {"select_layer": -2, "select_feature": "patch"}
    else:
        seen, said = _vision_fields(folder, config, vision_tower)
        fields |= seen
        warnings += said
    return config.build(MobileVLMConfig, **fields, warnings=warnings)


def projector_config(config: JsonConfig) -> ProjectorConfig:
    """Read the projector's keys of a checkpoint's `config.json`.

    Raises:
        ConfigError: The projector is unknown, or a key is absent or not usable.
    """
    kind, depth = config.build(parse_projector_type, name=config.get("mm_projector_type", "linear"))
    return config.build(
        ProjectorConfig,
        kind=kind,
        depth=depth,
        in_features=config.require("mm_hidden_size"),
        out_features=config.require("hidden_size"),
    )


def tower_name(config: JsonConfig) -> str:
    """The checkpoint's `mm_vision_tower`, which must be a name or a path."""
    name = config.require("mm_vision_tower")
    if not isinstance(name, str) or not 1 <= len(name) <= 1024:
        config.refuse("mm_vision_tower", "the name of a CLIP or the path of its folder")
    return name


# The arguments of the configuration, and warnings.
_Fields = tuple[dict[str, object], tuple[str, ...]]


def _text_fields(folder: Path, config: JsonConfig) -> _Fields:
    generation = read_optional_json_config(folder / "generation_config.json")
    behaviour = tokenizer_config(read_optional_json_config(folder / TOKENIZER_CONFIG))
    tokenizer = None
    if is_present(folder / TOKENIZER_MODEL, TokenizerError):
        tokenizer = Tokenizer(folder / TOKENIZER_MODEL, legacy=behaviour.legacy)
    warnings = check_keys(generation, GENERATION, "generation_config.json")
    return {
        "language": llama_config(config),
        "generation": generation_config(generation, config, tokenizer),
        "tokenizer": behaviour,
    }, warnings + check_tokenizer_files(folder, tokenizer)


def _vision_fields(folder: Path, config: JsonConfig, vision_tower: Path | None) -> _Fields:
    projector = projector_config(config)
    name = tower_name(config)
    # V2 has the tower's weights inside and can do without the folder.
    search = search_vision_tower if projector.is_v2 else find_vision_tower
    tower = search(folder, name, vision_tower)
    warnings: tuple[str, ...] = ()
    if tower is None:
        vision = _derived_vision_config(folder)
        preprocessor = JsonConfig("CLIP's own preprocessing", {})
    else:
        document = read_json_config(tower / "config.json")
        vision = clip_vision_config(document)
        preprocessor = read_optional_json_config(tower / "preprocessor_config.json")
        warnings = check_clip_keys(document, "the tower's config.json")
        warnings += check_keys(preprocessor, PREPROCESSOR, "preprocessor_config.json")
    return {
        "vision": vision,
        "projector": projector,
        "select_layer": config.require("mm_vision_select_layer"),
        "select_feature": config.get("mm_vision_select_feature", "patch"),
        "image": image_spec(preprocessor, image_size=vision.image_size, aspect=_aspect(config)),
        "extra_tokens": _extra_tokens(config),
    }, warnings


def _derived_vision_config(folder: Path) -> ClipVisionConfig:
    weights = open_weights(folder)
    return derive_clip_vision_config(
        {
            name.removeprefix(V2_TOWER_PREFIX): weights.shape(name)
            for name in weights.names()
            if name.startswith(V2_TOWER_PREFIX)
        }
    )


def _aspect(config: JsonConfig) -> str:
    """`pad` if the checkpoint says so; anything else means `crop` to MobileVLM's own code."""
    ratio = config.get("image_aspect_ratio", "crop")
    if not isinstance(ratio, str):
        config.refuse("image_aspect_ratio", "a name, such as 'pad'")
    return "pad" if ratio == "pad" else "crop"


def _extra_tokens(config: JsonConfig) -> tuple[str, ...]:
    patch = ("<im_patch>",) if config.flag("mm_use_im_patch_token", True) else ()
    ends = ("<im_start>", "<im_end>") if config.flag("mm_use_im_start_end", False) else ()
    return patch + ends
