"""What an artifact says of itself: its manifest's entries, and the settings of its chat."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tvm

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.job import CompileJob
from mvlm.compile.provenance import package_versions, source_digest
from mvlm.compile.toolchain.elf import library_needs
from mvlm.models.checkpoint import expected_tensors
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.model_zoo import identify
from mvlm.models.quantization import LayerPlan
from mvlm.runtime.artifact import layout
from mvlm.runtime.artifact.manifest import AbiEntry, FileEntry, LayerEntry, Manifest
from mvlm.runtime.artifact.target_entry import Requirements, TargetEntry
from mvlm.runtime.artifact.verify import digest_file, version_numbers
from mvlm.runtime.machine import read_machine
from mvlm.runtime.settings import ChatSettings


def chat_settings(job: CompileJob, model: MobileVLM) -> ChatSettings:
    """Return what the runtime needs of a model besides its functions and weights."""
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


def describe_artifact(
    folder: Path,
    job: CompileJob,
    target: CompileTarget,
    *,
    checkpoint: str,
    working_bytes: int,
    tuning: dict[str, Any],
) -> Manifest:
    """Return the manifest of an artifact whose other files have all been written.

    Args:
        folder: The artifact's.
        job: What was compiled.
        target: What it was compiled for.
        checkpoint: The digest of the checkpoint that it was made of.
        working_bytes: Memory that its functions plan.
        tuning: How many of its kernels were tuned, and by which logs.
    """
    versions, files = package_versions(), _file_entries(folder)
    digests = {entry.path: entry.sha256 for entry in files}
    libraries = {name: digests[f"{layout.LIBRARIES}/{name}"] for name in target.runtime_libraries}
    language = job.config.language
    plan = job.quantization.layer_plan(language.num_hidden_layers)
    bits = {} if plan is None else {"bits": f"{plan.mean_bits(language.unit_weights()):.4g}"}
    return Manifest(
        model=_model_entry(job),
        quantization=job.quantization.names() | bits,
        layers=() if plan is None else tuple(_layer_entry(each) for each in plan.layers),
        target=TargetEntry(
            name=target.name,
            device=target.device,
            tvm=dict(target.options),
            requirements=_requirements(job, folder, working_bytes),
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


def _layer_entry(layer: LayerPlan) -> LayerEntry:
    return LayerEntry(**dict(layer.items()))


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
