"""What is read from a checkpoint's JSON files, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvlm.models.config import (
    ClipVisionConfig,
    GenerationConfig,
    LlamaConfig,
    MobileVLMConfig,
    ProjectorConfig,
    TokenizerConfig,
    find_vision_tower,
)
from mvlm.models.config.projector import parse_projector_type
from mvlm.models.config.read import read_config
from mvlm.runtime.errors import ConfigError, UsageError
from mvlm.runtime.image import ImageSpec

Edit = Callable[..., Path]

# The keys of the published MobileVLM-1.7B and of its tower's file.
MOBILEVLM = {
    "architectures": ["MobileLlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "freeze_mm_mlp_adapter": False,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "image_aspect_ratio": "pad",
    "initializer_range": 0.02,
    "intermediate_size": 5632,
    "max_position_embeddings": 2048,
    "mm_hidden_size": 1024,
    "mm_projector_type": "ldpnet",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "model_type": "mobilevlm",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vision_tower_type": "clip",
    "vocab_size": 32000,
}
CLIP = {
    "model_type": "clip",
    "text_config": {"hidden_size": 768, "projection_dim": 768},
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
PREPROCESSOR = {
    "crop_size": 336,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 336,
}
ABSENT = object()


@pytest.fixture
def write(tmp_path: Path) -> Edit:
    """Write MobileVLM-1.7B's configuration with some keys changed, and its tower's beside it."""
    folder, tower = tmp_path / "MobileVLM-1.7B", tmp_path / "clip-vit-large-patch14-336"

    def save(path: Path, values: dict[str, Any], changes: dict[str, Any]) -> None:
        values = {**values, **changes}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({k: v for k, v in values.items() if v is not ABSENT}))

    def write(
        clip: dict[str, Any] | None = None,
        preprocessor: dict[str, Any] | None = None,
        generation: dict[str, Any] | None = None,
        tokenizer: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        save(folder / "config.json", MOBILEVLM, changes)
        if generation is not None:
            save(folder / "generation_config.json", {}, generation)
        if tokenizer is not None:
            save(folder / "tokenizer_config.json", {}, tokenizer)
        save(tower / "config.json", CLIP, clip or {})
        save(tower / "preprocessor_config.json", PREPROCESSOR, preprocessor or {})
        return folder

    return write


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


# --- what is read -------------------------------------------------------------------------------


def test_mobilevlm(write: Edit) -> None:
    config = read_config(write())
    assert config == MobileVLMConfig(
        language=LlamaConfig(
            vocab_size=32000,
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=24,
            num_attention_heads=16,
            num_key_value_heads=16,
            head_dim=128,
            rms_norm_eps=1e-6,
            rope_theta=10000.0,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
        ),
        vision=ClipVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            layer_norm_eps=1e-5,
            hidden_act="quick_gelu",
        ),
        projector=ProjectorConfig("ldpnet", 2, 1024, 2048),
        select_layer=-2,
        select_feature="patch",
        image=ImageSpec(
            336, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "pad"
        ),
        generation=GenerationConfig(1, (2,), 0),
        tokenizer=TokenizerConfig(legacy=True),
        extra_tokens=(),
    )
    assert config.image_tokens == 144
    assert config.num_vision_tokens == 576
    assert config.num_used_vision_layers == 23
    assert config.vision is not None and config.vision.grid == 24
    assert config.image is not None and config.image.background == (122, 116, 104)


def test_stale_keys_of_the_3b_are_ignored(write: Edit) -> None:
    folder = write(
        hidden_size=2560,
        num_attention_heads=32,
        num_key_value_heads=ABSENT,
        n_head=16,
        n_query_groups=16,
    )
    language = read_config(folder).language
    assert (language.head_dim, language.num_key_value_heads) == (80, 32)


def test_text_only(write: Edit) -> None:
    config = read_config(write(mm_vision_tower=ABSENT, model_type="llama"))
    assert (config.vision, config.projector, config.image) == (None, None, None)
    assert config.image_tokens == config.num_vision_tokens == config.num_used_vision_layers == 0


def test_tower_alone(write: Edit) -> None:
    flat = {"vision_config": ABSENT, **CLIP["vision_config"], "layer_norm_eps": 1e-6}
    folder = write(clip={"model_type": "clip_vision_model", **flat})
    vision = read_config(folder).vision
    assert vision is not None and vision.layer_norm_eps == 1e-6
    without_type = write(clip={"model_type": ABSENT, **flat})
    with pytest.raises(ConfigError, match=r"clip-vit.*has no `hidden_act`"):
        read_config(without_type)


def test_nested_defaults_are_those_of_transformers(write: Edit) -> None:
    folder = write(clip={"vision_config": {}}, preprocessor={"size": 224, "crop_size": 224})
    with pytest.raises(ConfigError, match=r"mm_hidden_size.*expected 768, found 1024"):
        read_config(folder)
    vision = read_config(
        write(
            clip={"vision_config": {}},
            preprocessor={"size": 224, "crop_size": 224},
            mm_hidden_size=768,
        )
    ).vision
    assert vision == ClipVisionConfig(768, 3072, 12, 12, 224, 32, 1e-5, "quick_gelu")


def test_rope_theta_of_transformers_5(write: Edit) -> None:
    newer = {"rope_type": "default", "rope_theta": 5e5}
    assert read_config(write(rope_parameters=newer)).language.rope_theta == 5e5
    assert read_config(write(rope_theta=10000)).language.rope_theta == 1e4
    with pytest.raises(ConfigError, match=r"rope_parameters.*`rope_type`"):
        read_config(write(rope_parameters={"rope_type": "yarn"}))


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, ()),
        ({"mm_use_im_patch_token": ABSENT}, ("<im_patch>",)),
        ({"mm_use_im_start_end": True}, ("<im_start>", "<im_end>")),
        ({"mm_use_im_patch_token": True, "mm_use_im_start_end": ABSENT}, ("<im_patch>",)),
    ],
)
def test_extra_tokens(write: Edit, changes: dict[str, Any], tokens: tuple[str, ...]) -> None:
    assert read_config(write(**changes)).extra_tokens == tokens


def test_generation_file_comes_first(write: Edit) -> None:
    both = read_config(write(generation={"eos_token_id": [2, 7]}, eos_token_id=3, pad_token_id=-1))
    assert both.generation == GenerationConfig(1, (2, 7), None)
    absent = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ABSENT)
    silent = read_config(write(generation={}, **absent))
    assert silent.generation == GenerationConfig(1, (2,), None)


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ({}, TokenizerConfig(legacy=True)),
        ({"legacy": None}, TokenizerConfig(legacy=True)),
        ({"legacy": False, "add_bos_token": True}, TokenizerConfig(legacy=False)),
    ],
)
def test_tokenizer_file(write: Edit, tokenizer: dict[str, Any], expected: TokenizerConfig) -> None:
    assert read_config(write(tokenizer=tokenizer)).tokenizer == expected


@pytest.mark.parametrize(
    "sizes",
    [
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        {"size": {"height": 336, "width": 336}},
        {"do_rescale": True, "rescale_factor": 0.00392156862745098},
    ],
)
def test_spellings_of_the_preprocessor(write: Edit, sizes: dict[str, Any]) -> None:
    assert read_config(write(preprocessor=sizes)) == read_config(write())


@pytest.mark.parametrize(
    ("ratio", "aspect"), [("pad", "pad"), (ABSENT, "crop"), ("anyres", "crop")]
)
def test_image_aspect_ratio_pad_pads(write: Edit, ratio: object, aspect: str) -> None:
    image = read_config(write(image_aspect_ratio=ratio)).image
    assert image is not None and image.aspect == aspect


def test_without_a_preprocessor_it_is_clips(write: Edit) -> None:
    folder = write()
    expected = read_config(folder)
    (folder.parent / "clip-vit-large-patch14-336/preprocessor_config.json").unlink()
    assert read_config(folder) == expected


# --- projectors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "depth"),
    [
        ("linear", "linear", 1),
        ("mlp1x_gelu", "mlp", 1),
        ("mlp2x_gelu", "mlp", 2),
        ("mlp0x_gelu", "mlp", 1),
        ("mlp12x_gelu", "mlp", 12),
        ("ldpnet", "ldpnet", 2),
        ("ldpnet_bn", "ldpnet", 2),
        ("ldpnetv2", "ldpnetv2", 2),
        ("ldpnetv2_gelu", "ldpnetv2", 2),
    ],
)
def test_projector_names(write: Edit, name: str, kind: str, depth: int) -> None:
    assert parse_projector_type(name) == (kind, depth)
    projector = read_config(write(mm_projector_type=name)).projector
    assert projector == ProjectorConfig(kind, depth, 1024, 2048)
    assert projector.is_v2 == (kind == "ldpnetv2")


def test_absent_projector_is_linear(write: Edit) -> None:
    projector = read_config(write(mm_projector_type=ABSENT)).projector
    assert projector is not None and projector.kind == "linear"


@pytest.mark.parametrize(
    "name",
    ["", "mlp", "mlp2x_relu", "mlpx_gelu", "mlp-1x_gelu", "Linear", "ldp", "ldpnet_v2", 7, []],
)
def test_unknown_projectors(write: Edit, name: object) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: unknown projector .* mlp<N>x_gelu"):
        read_config(write(mm_projector_type=name))


def test_absurd_projector_depth_is_refused(write: Edit) -> None:
    for name in ("mlp65x_gelu", "mlp9999x_gelu", "mlp99999x_gelu"):
        with pytest.raises(ConfigError, match=r"depth|unknown projector"):
            read_config(write(mm_projector_type=name))


@pytest.mark.parametrize(
    ("kind", "depth", "patches", "tokens"),
    [
        ("ldpnet", 2, 576, 144),
        ("ldpnet", 2, 25, 9),
        ("ldpnet", 2, 1, 1),
        ("ldpnetv2", 2, 576, 144),
        ("ldpnetv2", 2, 49, 144),
        ("linear", 1, 577, 577),
        ("mlp", 3, 576, 576),
    ],
)
def test_special_token_ids(kind: str, depth: int, patches: int, tokens: int) -> None:
    assert ProjectorConfig(kind, depth, 8, 16).num_tokens(patches) == tokens


@pytest.mark.parametrize("kind", ["ldpnet", "ldpnetv2"])
def test_a_grid_must_be_square(kind: str) -> None:
    with pytest.raises(ConfigError, match="square grid"):
        ProjectorConfig(kind, 2, 8, 16).num_tokens(577)


@pytest.mark.parametrize(
    # 2048 and 2560 are those of the released models; 152 / 4 = 38 rounds to 40, 44 / 4 = 11 to 8,
    # which loses over a tenth and so becomes 16.
    ("width", "squeezed"),
    [(2048, 512), (2560, 640), (128, 32), (152, 40), (44, 16), (4, 8)],
)
def test_squeeze_channels(width: int, squeezed: int) -> None:
    assert ProjectorConfig("ldpnet", 2, 8, width).squeeze_channels == squeezed


# --- the tower's folder -------------------------------------------------------------------------


def move_tower(write: Edit, place: Path) -> Path:
    folder = write()
    place.parent.mkdir(parents=True, exist_ok=True)
    (folder.parent / "clip-vit-large-patch14-336").rename(place)
    return folder


def test_tower_from_the_option(write: Edit, tmp_path: Path) -> None:
    folder = move_tower(write, tmp_path / "elsewhere/clip")
    assert read_config(folder, tmp_path / "elsewhere/clip").image_tokens == 144
    with pytest.raises(UsageError, match=r"--vision-tower .*nothing"):
        read_config(folder, tmp_path / "nothing")


def test_tower_from_the_hub_cache(write: Edit, empty_hub: Path) -> None:
    repository = empty_hub / "models--openai--clip-vit-large-patch14-336"
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = move_tower(write, repository / "snapshots" / commit)
    assert read_config(folder).image_tokens == 144
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit + "\n")
    assert read_config(folder).image_tokens == 144
    # A reference that is no commit is not followed.
    (repository / "refs/main").write_text("../../../../etc")
    assert find_vision_tower(folder, "openai/clip-vit-large-patch14-336").name == commit


@pytest.mark.parametrize("name", ["../towers/clip", "clip", "{base}/towers/clip"])
def test_tower_from_paths(write: Edit, tmp_path: Path, name: str) -> None:
    inside = {"clip": tmp_path / "MobileVLM-1.7B/clip"}
    move_tower(write, inside.get(name, tmp_path / "towers/clip"))
    folder = tmp_path / "MobileVLM-1.7B"
    config = {**MOBILEVLM, "mm_vision_tower": name.format(base=tmp_path)}
    (folder / "config.json").write_text(json.dumps(config))
    assert read_config(folder).image_tokens == 144


def test_tower_next_to_a_checkpoint_given_as_a_dot(
    write: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write())
    assert read_config(Path()).image_tokens == 144


def test_no_tower_names_the_places_and_the_option(write: Edit, tmp_path: Path) -> None:
    folder = move_tower(write, tmp_path / "hidden/away")
    with pytest.raises(ConfigError) as caught:
        read_config(folder)
    message = str(caught.value)
    for place in ("MobileVLM-1.7B/openai", "hub/models--openai--", "`--vision-tower DIR`"):
        assert place in message


@pytest.mark.parametrize("name", ["", "a" * 5000, 3, "\0", "..", "/", "a/../../../etc"])
def test_untrusted_tower_names_are_refused(write: Edit, name: object) -> None:
    with pytest.raises(ConfigError):
        read_config(write(mm_vision_tower=name))


# --- what is refused ----------------------------------------------------------------------------

REQUIRED = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
    "max_position_embeddings",
    "hidden_act",
    "mm_hidden_size",
    "mm_vision_select_layer",
]


@pytest.mark.parametrize("key", REQUIRED)
@pytest.mark.parametrize("value", [ABSENT, None], ids=["absent", "null"])
def test_a_config_without_a_key(write: Edit, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"config\.json has no `{key}`"):
        read_config(write(**{key: value}))


NUMBERS = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "rope_theta",
    "max_position_embeddings",
    "mm_hidden_size",
]
BAD = [0, -1, 10**30, True, "16", [16], {}, float("nan"), float("inf"), -0.5]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_numbers_of_the_checkpoint(write: Edit, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: ") as caught:
        read_config(write(**{key: value}))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("key", [*CLIP["vision_config"], "layer_norm_eps"])
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_numbers_of_the_tower(write: Edit, key: str, value: object) -> None:
    clip = {"vision_config": {**CLIP["vision_config"], key: value}}
    with pytest.raises(ConfigError, match=rf"config\.json at `vision_config`: .*{key}"):
        read_config(write(clip=clip))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_attention_heads": 3}, "divisor of `hidden_size`"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_key_value_heads": 32}, "num_key_value_heads"),
        ({"head_dim": 63}, "even"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"hidden_act": 5}, "hidden_act"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"mlp_bias": 0}, "mlp_bias"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"model_type": "qwen2"}, "model_type.*expected mobilevlm or llama"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"vision_tower_type": "siglip"}, "vision_tower_type"),
        ({"mm_hidden_size": 768}, "mm_hidden_size.*expected 1024, found 768"),
        ({"mm_vision_select_layer": 25}, "mm_vision_select_layer.*-25 to 24"),
        ({"mm_vision_select_layer": -26}, "mm_vision_select_layer"),
        ({"mm_vision_select_layer": True}, "mm_vision_select_layer"),
        ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature"),
        ({"mm_vision_select_feature": "cls_patch"}, "no place for a class token"),
        ({"mm_use_im_patch_token": "no"}, "mm_use_im_patch_token"),
        ({"image_aspect_ratio": 1}, "image_aspect_ratio"),
        ({"eos_token_id": 32000}, "eos_token_id"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"eos_token_id": []}, "eos_token_id"),
        ({"eos_token_id": [2, "3"]}, "eos_token_id"),
        ({"generation": {"eos_token_id": 2.0}}, r"generation_config.json: `eos_token_id`"),
        ({"tokenizer": {"legacy": "yes"}}, r"tokenizer_config.json: `legacy`"),
        ({"tokenizer": {"add_eos_token": True}}, "add_eos_token"),
        ({"clip": {"model_type": "siglip"}}, "model_type"),
        ({"clip": {"vision_config": []}}, "vision_config"),
        ({"clip": {"vision_config": {"num_channels": 1}}}, "num_channels"),
        ({"clip": {"vision_config": {"hidden_act": "relu"}}}, "hidden_act.*quick_gelu"),
        ({"clip": {"vision_config": {"patch_size": 225}}}, "patch_size"),
        ({"clip": {"vision_config": {"num_attention_heads": 7}}}, "num_attention_heads"),
        ({"preprocessor": {"size": 224}}, "size.*expected 336"),
        ({"preprocessor": {"crop_size": {"height": 336, "width": 224}}}, "crop_size"),
        ({"preprocessor": {"size": {"height": 336, "width": 224}}}, "size"),
        ({"preprocessor": {"resample": 2}}, "resample.*bicubic"),
        ({"preprocessor": {"do_normalize": False}}, "do_normalize"),
        ({"preprocessor": {"rescale_factor": 1.0}}, "rescale_factor"),
        ({"preprocessor": {"image_mean": [0.5, 0.5]}}, "image_mean"),
        ({"preprocessor": {"image_mean": [0.5, 0.5, float("nan")]}}, "image_mean"),
        ({"preprocessor": {"image_std": [0.0, 0.5, 0.5]}}, "image_std"),
        ({"preprocessor": {"image_std": 0.5}}, "image_std"),
    ],
    ids=str,
)
def test_invalid_configurations_are_refused(
    write: Edit, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(write(**changes))


def test_class_token_is_kept_for_linear_projectors(write: Edit) -> None:
    config = read_config(
        write(mm_projector_type="mlp2x_gelu", mm_vision_select_feature="cls_patch")
    )
    assert config.image_tokens == config.num_vision_tokens == 577


@pytest.mark.parametrize(
    ("layer", "used"), [(-1, 24), (-2, 23), (-25, 0), (0, 0), (1, 1), (24, 24)]
)
def test_select_layer_counts_hidden_states(write: Edit, layer: int, used: int) -> None:
    assert read_config(write(mm_vision_select_layer=layer)).num_used_vision_layers == used


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"a": ' + b"[" * 100_000,
        b'{"hidden_size": ' + b"9" * 10_000 + b"}",
    ],
    ids=["empty", "cut", "array", "null", "not UTF-8", "deep", "digits"],
)
def test_json_files_that_are_no_object_are_refused(write: Edit, text: bytes) -> None:
    folder = write()
    (folder / "config.json").write_bytes(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(folder)


def test_a_json_file_that_is_too_large_is_refused(write: Edit) -> None:
    folder = write()
    with (folder / "config.json").open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(ConfigError, match="too large"):
        read_config(folder)


def test_absent_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        read_config(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        read_config(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        read_config(tmp_path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.sampled_from(sorted(MOBILEVLM)), value=JSON_VALUES)
def test_any_value_is_read_or_refused(write: Edit, key: str, value: object) -> None:
    try:
        config = read_config(write(**{key: value}))
    except ConfigError as error:
        assert len(str(error)) < 1000
    else:
        assert config.language.hidden_size == config.language.num_attention_heads * 128


def test_dataclasses_refuse_by_themselves(write: Edit) -> None:
    config = read_config(write())
    with pytest.raises(ConfigError, match="all three or none"):
        dataclasses.replace(config, vision=None)
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        dataclasses.replace(config.language, num_hidden_layers=True)
    with pytest.raises(ConfigError, match="kind"):
        ProjectorConfig("resampler", 1, 8, 8)
    with pytest.raises(ConfigError, match="depth"):
        ProjectorConfig("linear", 2, 8, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.select_layer = -1  # type: ignore[misc]
