"""Compiles a job into an artifact, or packs its weights apart, for artifacts of several devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mvlm.compile.bits.find import with_plan
from mvlm.compile.bits.plan_file import read_plan, write_plan
from mvlm.compile.cache_folder import writing_advice
from mvlm.compile.calibration.find import find_or_calibrate
from mvlm.compile.calibration.rounded_weights import RoundedMatrices
from mvlm.compile.compile_target import CompileTarget, prepare_target
from mvlm.compile.hardlinks import link_equal_files
from mvlm.compile.job import CompileJob
from mvlm.compile.manifest import chat_settings, describe_artifact
from mvlm.compile.memory import check_memory, layer_bytes, peak_bytes
from mvlm.compile.model_library import write_library
from mvlm.compile.packing import PACKED_PLAN, PackedWeights, pack_into, take_packed
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
from mvlm.runtime.progress import Progress, no_progress
from mvlm.runtime.threads import default_threads


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
    target = prepare_target(job.target, job.platform)
    job = _planned(job, weights, progress, warn)
    model = job.build_model()
    checkpoint = _open_checked(job, model) if weights is None else None
    rounded = None if weights is not None else _calibrated(job, progress, warn)
    tuned = _tuned_configs(job, target)
    with atomic_directory(output, advice=writing_advice(output)) as folder:
        for path in layout.REQUIRED_FILES:
            (folder / path).parent.mkdir(exist_ok=True)
        library = write_library(
            model,
            target,
            folder,
            prefill_chunk=job.prefill_chunk,
            tuned=tuned,
            dump=dump,
            progress=progress,
        )
        write_json(folder / layout.KERNELS, traffic_to_json(library.kernel_traffic))
        if checkpoint is not None:
            pack_into(folder, job, model, library.parameters, checkpoint, progress, rounded)
        elif weights is not None:
            take_packed(folder, weights, library.parameters, model.layout.name)
        write_json(folder / layout.CHAT, chat_settings(job, model).to_json())
        progress("manifest", 0, 1)
        kernels = {name for traffic in library.kernel_traffic.values() for name in traffic}
        manifest = describe_artifact(
            folder,
            job,
            target,
            checkpoint=job.checkpoint_digest() if weights is None else weights.checkpoint,
            working_bytes=library.working_bytes,
            tuning=tuned.report(len(kernels)),
        )
        link_equal_files(folder, manifest.files, link_sources)
        (folder / layout.MANIFEST).write_bytes(manifest.to_bytes())
        progress("manifest", 1, 1)
    for text in (*job.config.warnings, *tuned.found.warnings, *tuned.warnings):
        warn(text)
    return manifest


def pack_job(
    job: CompileJob,
    output: Path,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = lambda text: None,
) -> None:
    """Write a job's weights and tokenizer as :class:`PackedWeights`, whole or not at all.

    Args:
        job: What they are of; it is calibrated first if it asks for that.
        output: Their folder, which gets the plan of bits as well if the job asks for one.
        progress: Called as the work proceeds.
        warn: Called with what the user should know.

    Raises:
        CheckpointError: Weights are missing, unexpected, misshapen or not finite.
        TokenizerError: The tokenizer is damaged, or has more pieces than the model has rows.
        TargetError: There is too little memory.
        ArtifactError: They cannot be written.
    """
    planned = _planned(job, None, progress, warn)
    model = planned.build_model()
    checkpoint = _open_checked(planned, model)
    rounded = _calibrated(planned, progress, warn)
    with atomic_directory(output, layout.WEIGHTS_INDEX) as folder:
        parameters = list(model.named_parameters())
        pack_into(folder, planned, model, parameters, checkpoint, progress, rounded)
        if job.quantization.bits is not None and planned.quantization.plan is not None:
            write_plan(folder / PACKED_PLAN, planned.quantization.plan)


def _planned(
    job: CompileJob,
    weights: PackedWeights | None,
    progress: Progress,
    warn: Callable[[str], None],
) -> CompileJob:
    """Return a job with the plan of bits that it asks for, which packed weights already have."""
    if job.quantization.bits is None:
        return job
    if weights is not None:
        plan = read_plan(weights.folder / PACKED_PLAN)
        return replace(job, quantization=job.quantization.with_plan(plan))
    # What is wrong with the checkpoint is found before its layers are measured.
    uniform = replace(job, quantization=replace(job.quantization, bits=None))
    _open_checked(uniform, uniform.build_model())
    return with_plan(job, progress, warn)


def _calibrated(
    job: CompileJob, progress: Progress, warn: Callable[[str], None]
) -> RoundedMatrices | None:
    """Return a job's calibrated matrices; None where it is not calibrated."""
    if job.calibration is None:
        return None
    return RoundedMatrices(find_or_calibrate(job, progress, warn))


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
