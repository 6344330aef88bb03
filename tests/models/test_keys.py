"""Every key of a checkpoint's JSON files is used, fixed, reported or ignored; none is forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import sentencepiece
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.image_processing_utils_fast import DefaultFastImageProcessorKwargs

from mvlm.models import keys_table
from mvlm.models.config import MobileVLMConfig, keys
from mvlm.models.config.keys import TABLES, Key, KeyTable
from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.models.model_zoo import CLIP, CLIP_NAME, PUBLISHED_MODELS
from mvlm.models.synthetic import documents
from mvlm.models.synthetic.checkpoint import published_config
from mvlm.models.weight_files import open_weights
from mvlm.runtime.errors import CheckpointError, ConfigError, MvlmError, TokenizerError
from tests.artifacts import ArtifactCache
from tests.reference.checkpoints import write_random_checkpoint
from tests.reference.tokenizer import VOCAB_SIZE

FIVE = json.loads((Path(__file__).parent / "data/transformers_5.json").read_text())
BUNDLED = Path(__file__).parents[2] / "models/bundled/mobilevlm-shapes"
Edit = Callable[..., MobileVLMConfig]

# Files by a short name, below the folder that holds a V1 and its tower.
FILES = {
    "config": "model/config.json",
    "generation": "model/generation_config.json",
    "tokenizer": "model/tokenizer_config.json",
    "special": "model/special_tokens_map.json",
    "added": "model/added_tokens.json",
    "clip": "model-clip/config.json",
    "preprocessor": "model-clip/preprocessor_config.json",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A V1 whose tower's folder is a whole CLIP."""
    folder = tmp_path_factory.mktemp("keys")
    write_random_checkpoint(folder / "model", "ldpnet", seed=0)
    return folder


@pytest.fixture
def edit(base: Path) -> Edit:
    """Read the configuration with some keys of one file changed; then restore the file."""

    def edit(file: str = "config", /, **changes: Any) -> MobileVLMConfig:
        path = base / FILES[file]
        before = path.read_bytes() if path.exists() else None
        try:
            path.write_text(json.dumps({**json.loads(before or b"{}"), **changes}))
            return read_config(base / "model")
        finally:
            path.unlink()
            if before is not None:
                path.write_bytes(before)

    return edit


def names(table: KeyTable) -> set[str]:
    return {name for name, _ in table.rows()}


# --- completeness -------------------------------------------------------------------------------

WRITTEN: dict[str, tuple[dict[str, Any], KeyTable]] = {
    "LlamaConfig": (transformers.LlamaConfig().to_dict(), keys.CONFIG),
    "CLIPVisionConfig": (transformers.CLIPVisionConfig().to_dict(), keys.CLIP_TOWER),
    "CLIPConfig": (transformers.CLIPConfig().to_dict(), keys.CLIP),
    "GenerationConfig": (transformers.GenerationConfig().to_dict(), keys.GENERATION),
    "CLIPImageProcessor": (transformers.CLIPImageProcessor().to_dict(), keys.PREPROCESSOR),
    "LlamaTokenizer": ({}, keys.TOKENIZER),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_key_of_the_installed_transformers(kind: str) -> None:
    written, table = WRITTEN[kind]
    assert written.keys() - names(table) == set()


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_key_of_transformers_5(kind: str) -> None:
    assert FIVE[kind].keys() - names(WRITTEN[kind][1]) == set()


def test_every_key_of_the_slow_and_the_fast_tokenizer(base: Path, tmp_path: Path) -> None:
    for kind in (transformers.LlamaTokenizer, transformers.LlamaTokenizerFast):
        kind.from_pretrained(base / "model").save_pretrained(tmp_path / kind.__name__)
        path = tmp_path / kind.__name__ / "tokenizer_config.json"
        written = json.loads(path.read_text())
        assert written.keys() - names(keys.TOKENIZER) == set()


def test_every_key_of_the_fast_image_processor() -> None:
    """Its class needs torchvision; its keys are declared apart."""
    written = DefaultFastImageProcessorKwargs.__annotations__.keys()
    assert written - names(keys.PREPROCESSOR) == set()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_no_key_stands_twice_in_a_table(table: KeyTable) -> None:
    listed = [name for name, _ in table.rows()]
    assert sorted(listed) == sorted(set(listed))


def test_the_documentation_has_the_tables() -> None:
    text = (Path(__file__).parents[2] / keys_table.DOCUMENT).read_text(encoding="utf-8")
    assert keys_table.written(text) == text, "run `python -m mvlm.models.keys_table`"
    assert all(table.title in text for table in TABLES)


# --- what transformers writes by default is read without a word ---------------------------------


def defaults(kind: str, *, five: bool, keep: set[str]) -> dict[str, Any]:
    written = FIVE[kind] if five else WRITTEN[kind][0]
    return {key: value for key, value in written.items() if key not in keep}


# What the small model has otherwise.
_SHAPES = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "model_type", "image_size", "patch_size", "size",
    "crop_size", "text_config", "vision_config", "bos_token_id", "eos_token_id",
}  # fmt: skip


@pytest.mark.parametrize("five", [False, True], ids=["transformers 4", "transformers 5"])
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("config", "LlamaConfig"),
        ("generation", "GenerationConfig"),
        ("clip", "CLIPConfig"),
        ("preprocessor", "CLIPImageProcessor"),
    ],
)
def test_defaults(edit: Edit, file: str, kind: str, five: bool) -> None:
    assert edit(file, **defaults(kind, five=five, keep=_SHAPES)) == edit()


def test_defaults_of_a_tower(edit: Edit) -> None:
    nested = {**FIVE["CLIPVisionConfig"], **WRITTEN["CLIPVisionConfig"][0]}
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    vision |= {"num_attention_heads": 4, "image_size": 56, "patch_size": 14}
    assert edit("clip", vision_config={**nested, **vision}) == edit()


def test_defaults_of_the_tokenizer_of_transformers_5(edit: Edit) -> None:
    assert edit("tokenizer", **FIVE["LlamaTokenizer"]) == edit()
    assert edit().warnings == ()


# --- each key by its role -----------------------------------------------------------------------

_BY_TABLE = {
    "config": keys.CONFIG,
    "generation": keys.GENERATION,
    "tokenizer": keys.TOKENIZER,
    "clip": keys.CLIP,
    "preprocessor": keys.PREPROCESSOR,
}
_FIXED = [
    (file, name, key)
    for file, table in _BY_TABLE.items()
    for name, key in table.rows()
    if key.role == "fixed"
]


@pytest.mark.parametrize(("file", "name", "key"), _FIXED, ids=lambda value: str(value)[:40])
def test_a_fixed_key(edit: Edit, file: str, name: str, key: Key) -> None:
    for value in (None, *key.values):
        if (name, value) != ("hidden_act", None):  # which must be there
            assert edit(file, **{name: value}).warnings == ()
    for value in (7, "another", ["x"], {"quant_method": "gptq"}, True, 0.5):
        if value in key.values:
            continue
        with pytest.raises(ConfigError, match=rf"{Path(FILES[file]).name}.*`{name}`"):
            edit(file, **{name: value})


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("generation", "top_k", 20),
        ("generation", "typical_p", 0.9),
        ("generation", "min_p", 0.1),
        ("config", "top_k", 20),
        ("config", "auto_map", {"AutoModel": "modeling.Model"}),
        ("tokenizer", "chat_template", "{{ messages }}"),
        ("preprocessor", "auto_map", {"AutoImageProcessor": "x.Y"}),
    ],
)
def test_a_reported_key(edit: Edit, file: str, name: str, value: object) -> None:
    (warning,) = edit(file, **{name: value}).warnings
    assert warning.startswith(f"{Path(FILES[file]).name}: `{name}` is ignored")


def test_unknown_keys_are_reported_if_they_ask_for_something(edit: Edit) -> None:
    assert edit("config", private=None, other=False, third=0, fourth={}).warnings == ()
    (warning,) = edit("config", private=3, rotary_twist=0.5).warnings
    assert warning == "config.json: unknown keys are ignored: private, rotary_twist"
    (warning,) = edit("clip", **{"a\x1b[31m" * 40: 1}).warnings
    assert warning.startswith("the tower's config.json: unknown keys") and len(warning) < 200
    assert "\x1b" not in warning
    (warning,) = edit("generation", **{f"key_{index}": 1 for index in range(20)}).warnings
    assert warning.endswith("and 12 more")


def test_warnings_name_no_folder(edit: Edit, base: Path) -> None:
    """They are part of a job's key, which must be the same on all machines."""
    assert str(base) not in "".join(edit("config", private=3).warnings)


def test_what_we_ship_and_write_is_read_without_a_word(tmp_path: Path) -> None:
    """The bundled model, and a release's documents with those of its CLIP."""
    model, tower = tmp_path / "MobileVLM-3B", tmp_path / CLIP_NAME
    for folder, name, values in (
        (model, "config.json", published_config(PUBLISHED_MODELS["MobileVLM-3B"])),
        (model, "generation_config.json", documents.generation_document()),
        (model, "tokenizer_config.json", documents.tokenizer_document(2048, legacy=False)),
        (model, "special_tokens_map.json", documents.special_tokens_document()),
        (tower, "config.json", documents.clip_document(CLIP)),
        (tower, "preprocessor_config.json", documents.preprocessor_document(CLIP.image_size)),
    ):
        folder.mkdir(exist_ok=True)
        documents.write_json(folder / name, values)
    for folder in (BUNDLED, model):
        assert read_config(folder).warnings == ()


def test_a_conversion_passes_warnings_on(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    source = write_random_checkpoint(tmp_path / "text", "text", seed=0, rotary_twist=0.5)
    (tmp_path / "out").mkdir()
    heard: list[str] = []
    convert(source, tmp_path / "out", Conversion("mlc", "q0f32"), warn=heard.append)
    assert heard == ["config.json: unknown keys are ignored: rotary_twist"]


def test_a_template_in_a_file_of_its_own(edit: Edit, base: Path) -> None:
    path = base / "model/chat_template.jinja"
    path.write_text("{{ messages }}")
    try:
        assert edit().warnings == (
            "chat_template.jinja is ignored: `--template` selects a template",
        )
    finally:
        path.unlink()


# --- rotary positions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "theta"),
    [
        ({}, 1e4),
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_scaling": {"rope_type": "default"}}, 1e4),
        ({"rope_scaling": {"type": "default"}, "rope_theta": 5e5}, 5e5),
        ({"rope_scaling": {}}, 1e4),
        ({"rope_scaling": {"rope_type": "default", "rope_theta": 5e5}}, 5e5),
        ({"rope_scaling": {"rope_type": "default", "factor": 1.0}}, 1e4),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, 5e5),
        ({"rope_parameters": {"type": "default", "rope_theta": 5e5}}, 5e5),
        ({"rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 1}}, 5e5),
        ({"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5}, 5e5),
        ({"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 500000}, 5e5),
    ],
    ids=str,
)
def test_the_rotary_base_wherever_it_is_written(
    edit: Edit, changes: dict[str, Any], theta: float
) -> None:
    found = edit(**changes)
    assert (found.language.rope_theta, found.warnings) == (theta, ())


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("key", ["type", "rope_type"])
@pytest.mark.parametrize(
    "kind", ["linear", "dynamic", "yarn", "llama3", "longrope", 7, ["default"]]
)
def test_scaled_positions_are_refused(edit: Edit, place: str, key: str, kind: object) -> None:
    with pytest.raises(ConfigError, match=rf"config\.json at `{place}`: `{key}`.*'default'"):
        edit(**{place: {key: kind, "factor": 2.0}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, "rope_theta"),
        (
            {"rope_scaling": {"rope_theta": 1e4}, "rope_parameters": {"rope_theta": 5e5}},
            "elsewhere",
        ),
        ({"rope_parameters": {"rope_type": "default", "type": "yarn"}}, "`type`"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 5e5}}}, "full_attention"),
        ({"rope_parameters": {"factor": 2.0}}, "`factor`"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": {"mrope_section": [1, 2]}}, "mrope_section"),
        ({"rope_parameters": {"rope_theta": "big"}}, "rope_theta"),
        ({"rope_parameters": [1]}, "rope_parameters"),
        ({"rope_scaling": 2.0}, "rope_scaling"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"layer_types": "full_attention"}, "layer_types"),
    ],
    ids=str,
)
def test_positions_that_contradict(edit: Edit, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edit(**changes)


def test_full_attention_in_every_layer(edit: Edit) -> None:
    assert edit(layer_types=["full_attention"] * 2) == edit()


# --- a whole CLIP's older key -------------------------------------------------------------------


def test_the_older_key_of_a_whole_clip(edit: Edit, base: Path) -> None:
    nested = json.loads((base / FILES["clip"]).read_text())["vision_config"]
    for changes in (
        {"vision_config_dict": nested},
        {"vision_config_dict": nested, "vision_config": None},
        {"vision_config_dict": None, "text_config_dict": None},
    ):
        assert edit("clip", **changes) == edit()
    with pytest.raises(ConfigError, match=r"`vision_config_dict`.*same tower"):
        edit("clip", vision_config_dict={**nested, "layer_norm_eps": 1e-6})
    with pytest.raises(ConfigError, match=r"vision_config_dict.*num_channels"):
        edit("clip", vision_config_dict={**nested, "num_channels": 1})


# --- tokens -------------------------------------------------------------------------------------


def added(content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"__type": "AddedToken", "content": content, **flags}


@pytest.mark.parametrize("file", ["tokenizer", "special"])
def test_special_tokens_as_text_and_as_objects(edit: Edit, file: str) -> None:
    for spelled in (str, added):
        changes = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        found = edit(file, **{key: spelled(text) for key, text in changes.items()})
        assert found == edit()


@pytest.mark.parametrize("file", ["tokenizer", "special"])
@pytest.mark.parametrize("key", ["bos_token", "eos_token", "unk_token"])
@pytest.mark.parametrize("value", ["", "<|im_end|>", added("<|im_end|>"), {}, 2, ["</s>"]], ids=str)
def test_special_tokens_that_are_others(edit: Edit, file: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{Path(FILES[file]).name}: `{key}`"):
        edit(file, **{key: value})


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("tokenizer", {"added_tokens_decoder": {"2": added("</s>")}}, ()),
        ("tokenizer", {"added_tokens_decoder": {"384": added("<im_patch>")}}, ()),
        ("tokenizer", {"added_tokens_decoder": {"384": added("[P]")}, "pad_token": "[P]"}, ()),
        ("tokenizer", {"added_tokens_decoder": {"384": added("<tool>")}}, ("<tool>",)),
        ("tokenizer", {"additional_special_tokens": ["<tool>", "</s>"]}, ("<tool>",)),
        ("tokenizer", {"extra_special_tokens": {"tool_token": "<tool>"}}, ("<tool>",)),
        ("special", {"additional_special_tokens": [added("<tool>")]}, ("<tool>",)),
        ("added", {"<tool>": 384, "<pad>": 385}, ("<tool>",)),
        ("added", {"</s>": 2}, ()),
    ],
    ids=str,
)
def test_added_tokens(edit: Edit, file: str, changes: dict[str, Any], told: tuple[str]) -> None:
    expected = tuple(
        f"tokens beyond tokenizer.model are read as plain text: {text!r}" for text in told
    )
    assert edit(file, **changes).warnings == expected


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("tokenizer", {"added_tokens_decoder": {"2": added("<|im_end|>")}}),
        ("tokenizer", {"added_tokens_decoder": {"-1": added("x")}}),
        ("tokenizer", {"added_tokens_decoder": {"9" * 40: added("x")}}),
        ("tokenizer", {"added_tokens_decoder": {"400": None}}),
        ("tokenizer", {"added_tokens_decoder": ["x"]}),
        ("tokenizer", {"additional_special_tokens": "x"}),
        ("tokenizer", {"additional_special_tokens": [3]}),
        ("tokenizer", {"pad_token": 3}),
        ("added", {"<|im_end|>": 2}),
        ("added", {"x": "384"}),
        ("added", {"x": -1}),
    ],
    ids=str,
)
def test_added_tokens_that_contradict(edit: Edit, file: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        edit(file, **changes)


# --- where an answer ends -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "ends"), [(2, (2,)), (5, (2, 5)), ([7, 5], (2, 7, 5)), ([2, 7], (2, 7)), (None, (2,))]
)
def test_an_answer_ends_at_the_tokenizers_end_too(
    edit: Edit, said: object, ends: tuple[int, ...]
) -> None:
    assert edit("generation", eos_token_id=said).generation.eos_token_ids == ends
    # generation_config.json comes first.
    assert edit("config", eos_token_id=said).generation.eos_token_ids == (2,)


def test_the_ids_of_the_tokenizer_reach_what_is_converted(tmp_path: Path) -> None:
    source = write_random_checkpoint(
        tmp_path / "text", "text", seed=0, eos_token_id=9, bos_token_id=8
    )
    (source / "generation_config.json").unlink()
    config = read_config(source)
    assert config.generation.eos_token_ids == (2, 9)
    assert config.generation.bos_token_id == 1
    (tmp_path / "out").mkdir()
    convert(source, tmp_path / "out", Conversion("gguf"))
    fields = gguf.GGUFReader(tmp_path / "out/model-f16.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 2
    assert fields["tokenizer.ggml.bos_token_id"].contents() == 1


def test_transformers_has_the_same_ends(base: Path) -> None:
    """The independent word on what the tokenizer's ids are."""
    slow = transformers.LlamaTokenizer.from_pretrained(base / "model")
    found = read_config(base / "model").generation
    assert (slow.bos_token_id, slow.eos_token_id) == (found.bos_token_id, found.eos_token_ids[0])
    model = sentencepiece.SentencePieceProcessor(model_file=str(base / "model/tokenizer.model"))
    assert model.vocab_size() == VOCAB_SIZE


def test_a_damaged_tokenizer_is_refused_before_any_work(base: Path, tmp_path: Path) -> None:
    source = write_random_checkpoint(tmp_path / "text", "text", seed=0)
    (source / "tokenizer.model").write_bytes(b"\x0a\xff")
    with pytest.raises(TokenizerError, match=r"tokenizer\.model is damaged"):
        read_config(source)


# --- nothing but our own errors -----------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["default", "rope_theta", "quant_method", "content", 10**400, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["rope_type", "type", "rope_theta", "quant_method", "content", "1", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
_EVERY_KEY = [(file, name) for file, table in _BY_TABLE.items() for name in sorted(names(table))]
_EVERY_KEY += [("special", key) for key in ("bos_token", "pad_token", "additional_special_tokens")]
_EVERY_KEY += [("added", "x"), ("added", "\ud800"), ("clip", "vision_config_dict")]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.sampled_from(_EVERY_KEY), value=JSON_VALUES)
def test_any_value_of_any_key(edit: Edit, place: tuple[str, str], value: object) -> None:
    file, key = place
    try:
        config = edit(file, **{key: value})
    except MvlmError as error:
        assert isinstance(error, ConfigError)
        assert len(str(error)) < 1500
    else:
        assert all(len(warning) < 500 for warning in config.warnings)


@pytest.fixture(scope="module")
def mlc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that mlc-llm's file alone describes, with sharded weights' index beside it."""
    folder = tmp_path_factory.mktemp("mlc")
    source = write_random_checkpoint(folder / "text", "text", seed=0, shards=2)
    (folder / "mlc").mkdir()
    convert(source, folder / "mlc", Conversion("mlc", "q0f32"))
    (folder / "mlc/config.json").unlink()
    return folder


_MLC_KEYS = [("chat", name) for name in sorted(names(keys.MLC))]
_MLC_KEYS += [("model", name) for name in sorted(names(keys.MLC_MODEL))]
_MLC_KEYS += [("index", name) for name in ("weight_map", "metadata", "model.norm.weight")]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.sampled_from(_MLC_KEYS), value=JSON_VALUES)
def test_any_value_in_mlcs_file_and_in_an_index(
    mlc: Path, place: tuple[str, str], value: object
) -> None:
    part, key = place
    index = mlc / "text/model.safetensors.index.json"
    path = index if part == "index" else mlc / "mlc/mlc-chat-config.json"
    before = path.read_bytes()
    values = json.loads(before)
    inner = {"model": "model_config", "index": "weight_map"}.get(part)
    (values if inner in (None, key) or key == "metadata" else values[inner])[key] = value
    try:
        path.write_text(json.dumps(values))
        if part == "index":
            assert open_weights(mlc / "text").names()
        else:
            found = read_config(mlc / "mlc").language
            assert found.hidden_size == values["model_config"]["hidden_size"]
    except (ConfigError, CheckpointError) as error:
        assert len(str(error)) < 1500
    finally:
        path.write_bytes(before)


def test_what_mlc_says_is_used_or_refused(mlc: Path) -> None:
    path = mlc / "mlc/mlc-chat-config.json"
    before = path.read_text()

    def read(model: dict[str, Any], **chat: Any) -> MobileVLMConfig:
        values = json.loads(before)
        values |= chat
        values["model_config"] |= model
        try:
            path.write_text(json.dumps(values))
            return read_config(mlc / "mlc")
        finally:
            path.write_text(before)

    assert read({}).warnings == ()
    assert read({"position_embedding_base": 500}).language.rope_theta == 500
    assert read({"rotary_twist": 2}).warnings == (
        "mlc-chat-config.json: unknown keys are ignored: rotary_twist",
    )
    for model, chat, message in (
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, {}, "rope_scaling.*'default'"),
        ({"rope_theta": 7.0}, {}, "position_embedding_base.*not both"),
        ({"attention_bias": True}, {}, "attention_bias"),
        ({"hidden_act": "gelu"}, {}, "hidden_act"),
        ({}, {"sliding_window_size": 1024}, "sliding_window_size"),
        ({}, {"repetition_penalty": 1.2}, "repetition_penalty"),
        ({}, {"model_type": "mistral"}, "model_type"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(model, **chat)
