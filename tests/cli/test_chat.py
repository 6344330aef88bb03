"""`mvlm chat --prompt`: answers, JSON, dumps, bad input, and what the process costs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvlm.runtime.artifact.layout import REQUIRED_FILES
from mvlm.runtime.chat import Chat
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.settings import read_settings
from tests.artifacts import ArtifactCache
from tests.cli.command_line import finish, mvlm, start
from tests.cli.manifests import ARCHITECTURE, FEATURES, edit_manifest

QUESTION = "How many shapes are there?"


@pytest.fixture(scope="module")
def artifact(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.artifact("ldpnet")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "an image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_chat_prints_the_librarys_completion(artifact: Path, image: Path) -> None:
    model = Model(artifact)
    assert model.settings.image is not None
    pixels = preprocess(load_image(image), model.settings.image)
    completion = Chat(model).generate(QUESTION, [pixels], SamplingParams(max_tokens=12)).completion
    asked = ("chat", artifact, "--image", image, "--prompt", QUESTION, "--max-tokens", "12")
    plain = mvlm(*asked)
    assert (plain.exit_code, plain.stdout, plain.stderr) == (0, completion.text + "\n", "")
    result = mvlm(*asked, "--json")
    assert result.stderr == ""
    timeless = {key: value for key, value in completion.to_json().items() if key != "stats"}
    assert {key: value for key, value in result.json.items() if key != "stats"} == timeless
    assert result.json["stats"].keys() == completion.to_json()["stats"].keys()
    assert result.json["usage"]["image_tokens"] == model.settings.image_tokens


@pytest.mark.parametrize(
    ("family", "scheme", "storage"),
    [
        pytest.param("ldpnet", "q0f32", ["float32"] * 2, marks=pytest.mark.extended),
        ("text", "q4f16_1", ["float16"] * 2),
        ("ldpnet", "q4a8", ["int8", "int8", "float32"]),
    ],
)
def test_chat_with_each_kv_cache_storage(
    artifact_cache: ArtifactCache, family: str, scheme: str, storage: list[str]
) -> None:
    """NumPy 2.4 hands over arrays without elements in a way that compiled code refuses."""
    artifact = artifact_cache.artifact(family, scheme)
    settings = read_settings(artifact)
    assert [tensor.dtype for tensor in settings.cache.tensors] == storage
    result = mvlm("chat", artifact, "--prompt", QUESTION, "--max-tokens", "3", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.json["token_ids"]) == result.json["usage"]["completion_tokens"] > 0


def test_prompt_is_read_from_standard_input(artifact: Path) -> None:
    options = ("--max-tokens", "5", "--json")
    piped = mvlm("chat", artifact, "--prompt", "-", *options, stdin=QUESTION)
    assert (
        piped.json["token_ids"]
        == mvlm("chat", artifact, "--prompt", QUESTION, *options).json["token_ids"]
    )


def test_sampling_options_reach_the_sampler(artifact: Path) -> None:
    def ids(*options: str) -> list[int]:
        asked = ("chat", artifact, "--prompt", QUESTION, "--max-tokens", "16", "--json")
        found: list[int] = mvlm(*asked, *options).json["token_ids"]
        return found

    greedy = ids()
    sampled = ids("--temperature", "5", "--seed", "1")
    assert sampled == ids("--temperature", "5", "--seed", "1")
    assert sampled != ids("--temperature", "5", "--seed", "2")
    assert sampled != greedy
    assert ids("--temperature", "5", "--top-k", "1") == greedy
    assert ids("--temperature", "5", "--top-p", "0") == greedy
    assert ids("--repetition-penalty", "50") != greedy
    assert ids("--template", "plain") != greedy
    assert len(ids("--max-tokens", "3")) == 3


def test_stop_option_ends_the_answer(artifact: Path) -> None:
    asked = ("chat", artifact, "--prompt", QUESTION, "--max-tokens", "40", "--json")
    text = mvlm(*asked).json["text"]
    middle = text[len(text) // 2]
    stopped = mvlm(*asked, "--stop", middle, "--stop", "never said").json
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == text[: text.index(middle)].rstrip()


def test_dump_holds_the_arrays_of_every_stage(artifact: Path, image: Path, tmp_path: Path) -> None:
    dump = tmp_path / "stages.npz"
    asked = ("chat", artifact, "--image", image, "--prompt", QUESTION, "--max-tokens", "4")
    result = mvlm(*asked, "--dump", dump, "--json")
    assert result.exit_code == 0
    with np.load(dump, allow_pickle=False) as stages:
        shapes = {name: stages[name].shape for name in stages.files}
        dtypes = {name: str(stages[name].dtype) for name in stages.files}
        chosen = stages["step_logits"].argmax(axis=1).tolist()
        last = stages["prefill_logits"][-1]
        assert np.array_equal(stages["step_logits"][0], last)
    settings = Model(artifact).settings
    positions = result.json["usage"]["prompt_tokens"]
    assert chosen == result.json["token_ids"]
    assert shapes["pixel_values"] == (1, 3, 56, 56)
    assert shapes["vision_features"][:2] == (1, 16)
    assert shapes["projector_output"] == (1, settings.image_tokens, settings.hidden)
    assert shapes["prefill_logits"] == (positions, settings.vocabulary)
    assert shapes["prompt_ids"] == (positions - settings.image_tokens + 1,)
    assert set(dtypes.values()) == {"float32", "int64"} and dtypes["prompt_ids"] == "int64"
    assert [path.name for path in tmp_path.iterdir()] == ["stages.npz"]
    assert dump.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failed_dump_leaves_no_file(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    asked = ("chat", artifact, "--prompt", QUESTION, "--max-tokens", "2")
    result = mvlm(*asked, "--dump", tmp_path / "stages.npz")
    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert result.stderr == "error: No space left on device\n"


def _bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def _text(path: Path) -> None:
    path.write_text("This is no image.")


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_text, "not an image"),
        (_nothing, "0 bytes"),
        (_bomb, "too many pixels"),
        (lambda path: None, "no file"),
        (Path.mkdir, "a folder"),
    ],
)
def test_a_bad_image_is_refused(artifact: Path, tmp_path: Path, write, words: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "image.png"
    write(path)
    result = mvlm("chat", artifact, "--image", path, "--prompt", QUESTION)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr and str(path) in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_image_of_one_pixel(artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "pixel.png"
    Image.new("RGB", (1, 1), "red").save(path)
    asked = ("chat", artifact, "--image", path, "--prompt", QUESTION, "--max-tokens", "2")
    assert mvlm(*asked).exit_code == 0


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(artifact: Path, prompt: str) -> None:
    result = mvlm("chat", artifact, "--prompt", prompt)
    assert result.exit_code == 1 and "the prompt is empty" in result.stderr


def test_a_prompt_over_the_context_is_refused(artifact: Path) -> None:
    result = mvlm("chat", artifact, "--prompt", "word " * 5000)
    assert result.exit_code == 1 and "does not fit into the context" in result.stderr
    shorter = mvlm("chat", artifact, "--prompt", QUESTION, "--context", "16")
    assert shorter.exit_code == 1 and "fewer than 16" in shorter.stderr


def test_a_context_over_the_models_is_refused(artifact: Path) -> None:
    result = mvlm("chat", artifact, "--prompt", QUESTION, "--context", "1000000")
    assert result.exit_code == 2 and "context" in result.stderr


def test_an_unknown_template_is_refused(artifact: Path) -> None:
    result = mvlm("chat", artifact, "--prompt", QUESTION, "--template", "chatml")
    assert result.exit_code == 2 and "vicuna_v1 or plain" in result.stderr


def test_quantization_of_an_artifact_is_refused(artifact: Path) -> None:
    result = mvlm("chat", artifact, "--prompt", QUESTION, "--quant", "q0f16")
    assert result.exit_code == 2 and "--quant" in result.stderr


def test_an_image_for_a_text_only_model_is_refused(
    artifact_cache: ArtifactCache, image: Path
) -> None:
    text_only = artifact_cache.artifact("text")
    result = mvlm("chat", text_only, "--image", image, "--prompt", QUESTION)
    assert result.exit_code == 1 and "text only" in result.stderr


@pytest.mark.parametrize("path", REQUIRED_FILES)
def test_a_corrupt_artifact_is_refused(artifact: Path, tmp_path: Path, path: str) -> None:
    copy = shutil.copytree(artifact, tmp_path / "artifact")
    content = bytearray((copy / path).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / path).write_bytes(content)
    result = mvlm("chat", copy, "--prompt", QUESTION)
    assert result.exit_code == 1
    assert f"{copy / path} is damaged" in result.stderr


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (ARCHITECTURE, "riscv64", "another architecture"),
        (FEATURES, ["quantum"], "CPU features"),
        ("abi.tvm", "0.1.0", "another TVM"),
        ("abi.tvm_ffi", "0.0.1", "apache-tvm-ffi"),
        ("target.device", {"kind": "npu", "requires": {}}, "expected cpu, found 'npu'"),
    ],
)
def test_an_artifact_for_another_machine_is_refused(
    artifact: Path, tmp_path: Path, key: str, value: object, words: str
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "artifact")
    edit_manifest(copy, key, value)
    result = mvlm("chat", copy, "--prompt", QUESTION)
    assert result.exit_code == 1
    assert words in result.stderr and "compile it" in result.stderr.lower()


def test_loads_neither_compiler_nor_torch_and_little_else(artifact: Path, image: Path) -> None:
    """Modules are what starting takes its time for."""
    code = (
        "import sys; from mvlm.cli.app import run; run(sys.argv[1:]);"
        "print([m for m in ('tvm', 'torch', 'rich', 'mvlm.compile') if m in sys.modules],"
        "len(sys.modules), file=sys.stderr);"
        "print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    asked = ("chat", artifact, "--image", image, "--prompt", QUESTION, "--max-tokens", "1")
    result = finish(start(*asked, "--json", code=code))
    first, *status = result.stderr.splitlines()
    modules, count = first.rsplit(" ", 1)
    assert modules == "[]"
    assert int(count) < 600
    (peak,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    assert peak * 1024 < 250e6


def test_an_interrupt_exits_with_a_message(artifact: Path) -> None:
    asked = ("chat", artifact, "--prompt", QUESTION, "--temperature", "3", "--max-tokens", "1900")
    process = start(*asked)
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
