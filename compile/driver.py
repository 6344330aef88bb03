"""Compiles a job into an artifact."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from mvlm.compile.cache_folder import writing_advice
from mvlm.compile.compile_target import CompileTarget, prepare_target
from mvlm.compile.hardlinks import link_equal_files
from mvlm.compile.job import CompileJob
from mvlm.compile.memory import working_bytes
from mvlm.compile.packing import (
    PackedWeights,
    Progress,
    build_model,
    open_weights,
    pack_into,
    take_packed,
    write_json,
)
from mvlm.compile.pipeline import dump_into, lower
from mvlm.compile.provenance import package_versions, source_digest
from mvlm.compile.toolchain.elf import library_needs
from mvlm.compile.tuning.apply import TunedConfigs, find_applicable_logs
from mvlm.compile.tuning_log import LogKey
from mvlm.models.checkpoint import expected_tensors
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.model_zoo import identify
from mvlm.runtime.artifact import layout
from mvlm.runtime.artifact.kernels import traffic_to_json
from mvlm.runtime.artifact.manifest import (
    AbiEntry,
    FileEntry,
    Manifest,
    read_manifest,
)
from mvlm.runtime.artifact.staging import atomic_directory
from mvlm.runtime.artifact.target_entry import Requirements, TargetEntry
from mvlm.runtime.artifact.verify import TVM_VERSION, digest_file, version_numbers
from mvlm.runtime.errors import TargetError
from mvlm.runtime.machine import read_machine
from mvlm.runtime.settings import ChatSettings
from mvlm.runtime.threads import default_threads
from mvlm.runtime.utf8_path import utf8_folder

# More than the code of any model takes; the weights are not in it.
_CODE_BYTES = 16 << 20


def compile_job(
    job: CompileJob,
    output: Path,
    *,
    weights: PackedWeights | None = None,
    dump: Path | None = None,
    share: Sequence[Path] = (),
    progress: Progress = lambda step, done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Manifest:
    """Compile a checkpoint and write the artifact, whole or not at all.

    Args:
        job: What to compile.
        output: The artifact's folder; an artifact that is there already is replaced.
        weights: Weights of this job that were packed before; the checkpoint is then not read.
        dump: A folder for the module after each phase, or None.
        share: Artifacts whose weight files are shared where they are equal.
        progress: Called as the work proceeds.
        warn: Called with what the user should know.

    Returns:
        The manifest of what was written.

    Raises:
        UsageError: The target is unknown, or something else lies at `output`.
        CheckpointError: Weights are missing, unexpected, misshapen or not finite.
        TokenizerError: The tokenizer is damaged, or has more pieces than the model has rows.
        TargetError: The toolchain cannot serve the target, or there is too little memory.
        ArtifactError: The artifact cannot be written, or one to share with is none.
    """
    _check_tvm()
    link_sources = [(place, read_manifest(place)) for place in share]
    # A Ctrl-C within one of our passes goes through TVM, which keeps the types that it knows.
    tvm_ffi.register_error("KeyboardInterrupt", KeyboardInterrupt)
    target = prepare_target(job.target, job.platform)
    model = build_model(job)
    checkpoint = open_weights(job, model) if weights is None else None
    tuned = _tuned_configs(job, target)
    with atomic_directory(output, advice=writing_advice(output)) as folder:
        for path in layout.REQUIRED_FILES:
            (folder / path).parent.mkdir(exist_ok=True)
        library = _write_library(model, job, target, tuned, folder, dump, progress)
        if checkpoint is not None:
            pack_into(folder, job, model, library.parameters, checkpoint, progress)
        elif weights is not None:
            take_packed(folder, weights, library.parameters)
        write_json(folder / layout.CHAT, _settings(job, model).to_json())
        progress("manifest", 0, 1)
        requirements = _requirements(job, folder, library.working_bytes)
        made_of = job.checkpoint_digest() if weights is None else weights.checkpoint
        tuning = tuned.report(library.kernels)
        manifest = _manifest(job, target, made_of, requirements, _file_entries(folder), tuning)
        link_equal_files(folder, manifest.files, link_sources)
        (folder / layout.MANIFEST).write_bytes(manifest.to_bytes())
        progress("manifest", 1, 1)
    for text in (*job.config.warnings, *tuned.found.warnings, *tuned.warnings):
        warn(text)
    return manifest


def _tuned_configs(job: CompileJob, target: CompileTarget) -> TunedConfigs:
    """Find the tuning logs for the target and, if it is this machine, its number of threads."""
    threads = default_threads() if job.target.cpu.is_native else None
    key = LogKey.for_target(target.name, target.options, threads)
    return TunedConfigs(find_applicable_logs(key, job.logs))


@dataclass(frozen=True)
class Library:
    """What was compiled.

    Attributes:
        parameters: What its functions take, by name.
        working_bytes: Memory that they plan for what is in between.
        kernels: How many kernels they call.
    """

    parameters: list[tuple[str, Any]]
    working_bytes: int
    kernels: int


def _write_library(
    model: MobileVLM,
    job: CompileJob,
    target: CompileTarget,
    tuned: TunedConfigs,
    folder: Path,
    dump: Path | None,
    progress: Progress,
) -> Library:
    """Generate and link the functions."""
    steps = ["graph", "kernels", "fuse", "schedule", "lower", "code", "link"]

    def entered(step: str) -> None:
        progress(f"compile: {step}", steps.index(step), len(steps))

    module, parameters = model.export(target.tvm)
    bounds = {"n": job.prefill_chunk}
    lowered = lower(module, target.tvm, target.kernels, bounds, entered, dump_into(dump), tuned)
    write_json(folder / layout.KERNELS, traffic_to_json(lowered.kernel_traffic))
    entered("code")
    with tvm.transform.PassContext(opt_level=3):
        executable = relax.build(lowered.module, target.tvm, relax_pipeline=None)

    def link(output: str, objects: list[str], **_: object) -> None:
        entered("link")
        target.linker.link_files(output, objects)

    # Beside the artifact, where what a killed process leaves behind is swept up.
    with (
        utf8_folder(folder.parent) as parent,
        tempfile.TemporaryDirectory(dir=parent) as workspace,
    ):
        _require_room(Path(workspace))
        library = parent / folder.name / layout.MODEL_LIBRARY
        executable.export_library(os.fspath(library), fcompile=link, workspace_dir=workspace)
    for name, data in target.runtime_libraries.items():
        (folder / layout.LIBRARIES / name).write_bytes(data)
    progress("compile: link", len(steps), len(steps))
    kernels = {name for traffic in lowered.kernel_traffic.values() for name in traffic}
    return Library(parameters, working_bytes(lowered.module), len(kernels))


def _require_room(folder: Path) -> None:
    """Raise OSError where no code could be written: LLVM would end the process instead."""
    with (folder / "room").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _CODE_BYTES)
    (folder / "room").unlink()


def _settings(job: CompileJob, model: MobileVLM) -> ChatSettings:
    config = job.config
    return ChatSettings(
        template="vicuna_v1",
        bos=config.generation.bos_token_id,
        eos=config.generation.eos_token_ids,
        legacy_tokenizer=config.tokenizer.legacy,
        vocabulary=config.language.vocab_size,
        hidden=config.language.hidden_size,
        context=job.context,
        prefill_chunk=job.prefill_chunk,
        image=config.image,
        image_tokens=config.image_tokens,
        cache=model.cache_layout.spec(),
    )


def _requirements(job: CompileJob, folder: Path, working: int) -> Requirements:
    """Read from the libraries what they require of a device, and add the model's memory."""
    libraries = [library_needs(path) for path in (folder / layout.LIBRARIES).glob("*.so")]
    weights = sum(path.stat().st_size for path in (folder / layout.WEIGHTS).glob("*.bin"))
    if job.platform == "android":
        libc = str(job.target.needs.android_api)
    else:
        found = [library.glibc for library in libraries if library.glibc]
        libc = max(found, key=version_numbers, default=job.target.needs.glibc)
    return Requirements(
        platform=job.platform,
        libc=libc,
        page_bytes=min(library.page_bytes for library in libraries),
        memory_bytes=weights + working,
    )


def _manifest(
    job: CompileJob,
    target: CompileTarget,
    checkpoint: str,
    requirements: Requirements,
    files: tuple[FileEntry, ...],
    tuning: dict[str, Any],
) -> Manifest:
    versions = package_versions()
    digests = {entry.path: entry.sha256 for entry in files}
    libraries = {name: digests[f"{layout.LIBRARIES}/{name}"] for name in target.runtime_libraries}
    return Manifest(
        model=_model_entry(job),
        quantization=job.quantization.names(),
        target=TargetEntry(
            name=target.name,
            device=target.device,
            tvm=dict(target.options),
            requirements=requirements,
        ),
        abi=AbiEntry(versions["apache-tvm"], versions["apache-tvm-ffi"], libraries),
        files=files,
        provenance={
            "checkpoint": checkpoint,
            "source": source_digest(),
            "toolchain": versions
            | {
                "llvm": str(tvm.target.codegen.llvm_version_major()),
                "linker": target.linker.description,
            },
            "tuning": tuning,
        },
        evidence={},
    )


def _model_entry(job: CompileJob) -> dict[str, Any]:
    language, vision, projector = job.config.language, job.config.vision, job.config.projector
    shapes = expected_tensors(job.config).values()
    published = identify(job.config)
    entry: dict[str, Any] = {
        "name": job.name,
        "family": "mobilevlm" if vision else "mobilellama",
        "published_as": None if published is None else published.name,
        "parameters": sum(math.prod(shape) for shape in shapes),
        "layers": language.num_hidden_layers,
        "hidden": language.hidden_size,
        "intermediate": language.intermediate_size,
        "heads": language.num_attention_heads,
        "kv_heads": language.num_key_value_heads,
        "head_dim": language.head_dim,
        "vocabulary": language.vocab_size,
        "context": job.context,
    }
    if vision and projector:
        entry["vision"] = {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "layers_used": job.config.num_used_vision_layers,
            "hidden": vision.hidden_size,
            "projector": projector.kind,
            "image_tokens": job.config.image_tokens,
        }
    return entry


def _file_entries(folder: Path) -> tuple[FileEntry, ...]:
    """Describe every file that has been written."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    files = [path for path in paths if (folder / path).is_file()]
    with ThreadPoolExecutor(read_machine().cores) as pool:
        digests = pool.map(lambda path: digest_file(folder / path), files)
    sizes = ((folder / path).stat().st_size for path in files)
    return tuple(map(FileEntry, files, sizes, digests))


def _check_tvm() -> None:
    """Refuse to make an artifact that our own loader would refuse."""
    installed = package_versions()["apache-tvm"]
    if installed != TVM_VERSION:
        raise TargetError(
            "the installed apache-tvm is not the one that the runtime is written for",
            expected=TVM_VERSION,
            found=installed,
            fix=f"`pip install apache-tvm=={TVM_VERSION}`",
        )
