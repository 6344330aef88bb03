"""`mvlm compile`, and the compiling that chat does when it is given a checkpoint."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mvlm.cli.shared.interrupts import deferred_interrupts
from mvlm.runtime.artifact import verify_artifact
from tests.adapters import edit, write_adapter
from tests.artifacts import ArtifactCache
from tests.cli.command_line import finish, mvlm, start

ASK = ("--quant", "q0f32", "--prompt", "Hello", "--max-tokens", "3", "--json")


def test_compile_writes_an_artifact(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    artifact, dump = tmp_path / "out" / "artifact", tmp_path / "phases"
    options = ("--quant", "q0f16", "--context", "64", "--prefill-chunk", "32", "--dump", dump)
    result = mvlm("compile", artifact_cache.checkpoint("text"), *options, "-o", artifact, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    manifest = verify_artifact(artifact)
    assert (
        result.json.items()
        >= {
            "artifact": str(artifact),
            "digest": manifest.digest,
            "bytes": sum(entry.size for entry in manifest.files),
            "target": "host",
            "quantization": dict.fromkeys(("language", "embedding", "head", "vision"), "q0f16")
            | {"cache": "float16"},
        }.items()
    )
    assert result.json["seconds"] > 0
    assert manifest.model["context"] == 64
    phases = sorted(path.name for path in dump.iterdir())
    assert phases == ["0-graph.py", "1-kernels.py", "2-fuse.py", "3-schedule.py", "4-lower.py"]


def test_compile_makes_an_artifact_per_adapter(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint = artifact_cache.checkpoint("text")
    options: list[str | Path] = ["--quant", "q0f16", "-o", tmp_path / "out", "--json"]
    for seed, name in enumerate(("birds", "flowers")):
        write_adapter(checkpoint, tmp_path / name, seed, target_modules=["q_proj"])
        options += ["--lora", tmp_path / name]
    result = mvlm("compile", checkpoint, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    places = [Path(document["artifact"]) for document in result.json["artifacts"]]
    assert places == [tmp_path / "out" / name for name in ("birds", "flowers")]
    models = [verify_artifact(place).model["name"] for place in places]
    assert models == ["text+birds", "text+flowers"]
    same = [
        (places[0] / "weights" / name).samefile(places[1] / "weights" / name)
        for name in ("head.bin", "layer-00-mlp.bin", "layer-00-attention.bin")
    ]
    assert same == [True, True, False]


@pytest.mark.extended
def test_compile_adapters_in_folders_of_one_name(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint = artifact_cache.checkpoint("text")
    adapters = [tmp_path / "runs" / run / "checkpoint-500" for run in ("a", "b")]
    options: list[str | Path] = ["--quant", "q0f16", "-o", tmp_path / "out", "--json"]
    for seed, adapter in enumerate(adapters):
        write_adapter(checkpoint, adapter, seed, target_modules=["q_proj"])
        options += ["--lora", adapter]
    result = mvlm("compile", checkpoint, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    places = [Path(document["artifact"]) for document in result.json["artifacts"]]
    assert [place.name for place in places] == ["a-checkpoint-500", "b-checkpoint-500"]
    digests = [verify_artifact(place).digest for place in places]
    assert digests == [document["digest"] for document in result.json["artifacts"]]
    assert digests[0] != digests[1]


def test_compile_adapter_given_twice(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    write_adapter(artifact_cache.checkpoint("text"), tmp_path / "birds", target_modules=["q_proj"])
    (tmp_path / "link").symlink_to(tmp_path / "birds")
    options = ("--lora", tmp_path / "birds", "--lora", tmp_path / "link", "-o", tmp_path / "out")
    result = mvlm("compile", artifact_cache.checkpoint("text"), *options)
    assert result.exit_code == 2 and "expected each adapter once" in result.stderr
    assert not (tmp_path / "out").exists()


def test_all_adapters_are_checked_before_the_first_is_compiled(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint = artifact_cache.checkpoint("text")
    write_adapter(checkpoint, tmp_path / "good", target_modules=["q_proj"])
    write_adapter(checkpoint, tmp_path / "bad", target_modules=["q_proj"])
    edit(tmp_path / "bad", init_lora_weights="pissa")
    options = ("--lora", tmp_path / "good", "--lora", tmp_path / "bad", "-o", tmp_path / "out")
    result = mvlm("compile", checkpoint, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`init_lora_weights`" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (("--target", "toaster"), 2, "unknown target"),
        (("--quant", "q1"), 2, "unknown quantization"),
        (("--vision-quant", "q1"), 2, "unknown quantization"),
        (("--embedding-quant", "q1"), 2, "unknown quantization"),
        (("--head-quant", "q1"), 2, "unknown quantization"),
        (("--ffn-quant", "q4f16_1"), 2, "--ffn-quant cannot be one that is chosen by layer"),
        (("--bits", "3"), 2, "bits of a weight on average: expected 3.25"),
        (("--plan", "nowhere.json"), 2, "cannot read nowhere.json"),
        (("--kv-cache", "q4"), 2, "storage of the KV cache: expected float32 or float16 or int8"),
        (("--rounding", "up"), 2, "unknown rounding: expected nearest or search"),
        (("--lora", "nowhere"), 2, "is not the folder of an adapter"),
        (("--share", "nowhere"), 1, "is not an artifact"),
        (("--vision-onnx", "nowhere.onnx"), 2, "is not a file"),
        (("--context", "0"), 2, "--context"),
        (("--prefill-chunk", "0"), 2, "--prefill-chunk"),
    ],
)
def test_compile_refuses_bad_input(
    artifact_cache: ArtifactCache,
    tmp_path: Path,
    options: tuple[str, str],
    exit_code: int,
    words: str,
) -> None:
    result = mvlm(
        "compile", artifact_cache.checkpoint("text"), *options, "-o", tmp_path / "artifact"
    )
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith("error: ") and words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_compile_does_not_overwrite_other_files(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("three years' work")
    result = mvlm("compile", artifact_cache.checkpoint("text"), "-o", tmp_path)
    assert result.exit_code == 2 and "in the way" in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "three years' work"


@pytest.mark.extended
def test_chat_compiles_a_checkpoint_once_in_a_process_of_its_own(
    artifact_cache: ArtifactCache, empty_cache: Path
) -> None:
    code = (
        "import sys; from mvlm.cli.app import run; code = run(sys.argv[1:]);"
        "print([m for m in ('tvm', 'torch') if m in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    ask = ("chat", artifact_cache.checkpoint("text"), *ASK)
    first = finish(start(*ask, code=code))
    assert first.exit_code == 0
    note, modules = first.stderr.splitlines()
    assert note.startswith("compiling text (q0f32)") and modules == "[]"
    (artifact,) = (empty_cache / "artifacts").iterdir()
    verify_artifact(artifact)
    again = finish(start(*ask, code=code))
    assert again.stderr.splitlines() == ["[]"]
    assert again.json["token_ids"] == first.json["token_ids"]


@pytest.mark.extended
@pytest.mark.usefixtures("empty_cache")
def test_a_failed_compilation_is_reported_once(
    artifact_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "false")
    result = finish(start("chat", artifact_cache.checkpoint("text"), *ASK))
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "compiling thread_pool.c with false failed" in errors[0]
    assert result.json["error"]["message"] == errors[0]


@pytest.mark.parametrize("verb", ["compile", "chat"])
def test_compile_with_a_file_at_the_cache_path(
    artifact_cache: ArtifactCache, empty_cache: Path, verb: str
) -> None:
    empty_cache.write_text("a file")
    result = mvlm(verb, artifact_cache.checkpoint("text"), *(ASK if verb == "chat" else ()))
    assert result.exit_code == 2
    assert "cannot be used: found Not a directory. Set MVLM_CACHE" in result.stderr


@pytest.mark.extended
@pytest.mark.parametrize("verb", ["compile", "chat"])
def test_compile_interrupted_leaves_nothing(
    artifact_cache: ArtifactCache, empty_cache: Path, verb: str
) -> None:
    more = ("--json",) if verb == "compile" else ASK
    process = start(verb, artifact_cache.checkpoint("text"), *more)
    _wait_until(lambda: any(empty_cache.rglob(".*.staging-*")))
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.splitlines().count("interrupted") == 1
    assert list((empty_cache / "artifacts").iterdir()) == []


def _wait_until(holds: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_interrupt_that_compiled_code_swallows_is_raised_again() -> None:
    with deferred_interrupts() as raise_if_interrupted:
        raise_if_interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
