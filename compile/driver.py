"""Compiles a job into an artifact, or packs its weights apart, for artifacts of several devices."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
import tvm_ffi
from tvm import relax

from mvlm.compile.cache_folder import writing_advice
from mvlm.compile.compile_target import CompileTarget, prepare_target
from mvlm.compile.hardlinks import link_equal_files
from mvlm.compile.job import CompileJob
from mvlm.compile.manifest import chat_settings, describe_artifact
from mvlm.compile.memory import check_memory, layer_bytes, peak_bytes
from mvlm.compile.packing import PackedWeights, Parameters, pack_into, take_packed
from mvlm.compile.pipeline import dump_into, lower
from mvlm.compile.provenance import package_versions
from mvlm.compile.tuning.apply import TunedConfigs, find_applicable_logs
from mvlm.compile.tuning_log import LogKey
from mvlm.models.checkpoint import Checkpoint, expected_tensors
from mvlm.models.layers import packed_layers
from mvlm.models.mobilevlm import MobileVLM
from mvlm.runtime.artifact import layout
from mvlm.runtime.artifact.json_object import write_json
from mvlm.runtime.artifact.kernels import traffic_to_json
from mvlm.runtime.artifact.manifest import Manifest, read_manifest
from mvlm.runtime.artifact.staging import atomic_directory
from mvlm.runtime.artifact.verify import TVM_VERSION
from mvlm.runtime.errors import TargetError
from mvlm.runtime.input_file import utf8_folder
from mvlm.runtime.progress import Progress, no_progress
from mvlm.runtime.threads import default_threads

# More than the code of any model takes; the weights are not in it.
_CODE_BYTES = 16 << 20


def compile_job(
    job: CompileJob,
    output: Path,
    *,
    weights: PackedWeights | None = None,
    dump: Path | None = None,
    share: Sequence[Path] = (),
    progress: Progress = no_progress,
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
    model = job.build_model()
    checkpoint = _open_checked(job, model) if weights is None else None
    tuned = _tuned_configs(job, target)
    with atomic_directory(output, advice=writing_advice(output)) as folder:
        for path in layout.REQUIRED_FILES:
            (folder / path).parent.mkdir(exist_ok=True)
        library = _write_library(model, job, target, tuned, folder, dump, progress)
        if checkpoint is not None:
            pack_into(folder, job, model, library.parameters, checkpoint, progress)
        elif weights is not None:
            take_packed(folder, weights, library.parameters, model.layout.name)
        write_json(folder / layout.CHAT, chat_settings(job, model).to_json())
        progress("manifest", 0, 1)
        manifest = describe_artifact(
            folder,
            job,
            target,
            checkpoint=job.checkpoint_digest() if weights is None else weights.checkpoint,
            working_bytes=library.working_bytes,
            tuning=tuned.report(library.kernels),
        )
        link_equal_files(folder, manifest.files, link_sources)
        (folder / layout.MANIFEST).write_bytes(manifest.to_bytes())
        progress("manifest", 1, 1)
    for text in (*job.config.warnings, *tuned.found.warnings, *tuned.warnings):
        warn(text)
    return manifest


def pack_job(job: CompileJob, output: Path, progress: Progress = no_progress) -> None:
    """Write a job's weights and tokenizer as :class:`PackedWeights`, whole or not at all.

    Raises:
        CheckpointError: Weights are missing, unexpected, misshapen or not finite.
        TokenizerError: The tokenizer is damaged, or has more pieces than the model has rows.
        TargetError: There is too little memory.
        ArtifactError: They cannot be written.
    """
    model = job.build_model()
    checkpoint = _open_checked(job, model)
    with atomic_directory(output, layout.WEIGHTS_INDEX) as folder:
        pack_into(folder, job, model, list(model.named_parameters()), checkpoint, progress)


def _open_checked(job: CompileJob, model: MobileVLM) -> Checkpoint:
    """Open a job's checkpoint; check that it is the model's and that there is memory for it."""
    checkpoint = job.open_checkpoint()
    layers = [layer for _, layer in packed_layers(model)]
    used = {name for layer in layers for name in layer.sources()}
    checkpoint.check(expected_tensors(job.config), used).raise_if_bad()
    job.check_tokenizer()
    check_memory(peak_bytes(layer_bytes(layer, checkpoint) for layer in layers))
    return checkpoint


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

    parameters: Parameters
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
    return Library(parameters, lowered.working_bytes, len(kernels))


def _require_room(folder: Path) -> None:
    """Raise OSError where no code could be written: LLVM would end the process instead."""
    with (folder / "room").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _CODE_BYTES)
    (folder / "room").unlink()


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
