"""The bundled model's functions, compiled for the emulated device: each operation by its kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm
from tvm import relax

from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.compile.job import plan_job
from mvlm.compile.pipeline import lower, tensor_functions
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.quantization import SCHEMES, plan_quantization
from mvlm.runtime.artifact.layout import MODEL_LIBRARY
from tests.arm.device import ArmDevice, link

pytestmark = pytest.mark.arm

_ELF_AARCH64 = (183).to_bytes(2, "little")  # e_machine, at byte 18


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_function_compiles(tmp_path: Path, scheme: str) -> None:
    job = plan_job(BUNDLED, quantization=plan_quantization(scheme))
    target = ArmDevice.target
    module, _ = MobileVLM(job.config, job.quantization, job.layout).export(target)
    lowered = lower(module, target, "cpu", {"n": job.prefill_chunk})
    scheduled = {
        str(function.attrs.get("mvlm.op", "")): function.attrs.get("tirx.is_scheduled", False)
        for _, function in tensor_functions(lowered.module)
    }
    assert scheduled.keys() >= {"cached_attention", "append_to_cache", "attention"}
    assert all(done for operation, done in scheduled.items() if operation)
    with tvm.transform.PassContext(opt_level=3):
        executable = relax.build(lowered.module, target, relax_pipeline=None)
    link(executable, tmp_path)
    assert (tmp_path / MODEL_LIBRARY).read_bytes()[18:20] == _ELF_AARCH64
