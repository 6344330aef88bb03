"""What was tuned for the published models is found by the definitions of today."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tvm.s_tir.meta_schedule.database import Workload
from tvm.target import Target

from mvlm.compile.pipeline import tensor_functions
from mvlm.compile.tuning.apply import ApplicableLogs, TunedConfigs
from mvlm.compile.tuning.workload import kernel_workload, signature_of, workload_key
from mvlm.compile.tuning_log import read_log, shipped_logs_folder
from mvlm.compile.tuning_log.trace import try_read_config
from mvlm.models.cache_layout import CacheLayout
from mvlm.models.config import MobileVLMConfig
from mvlm.models.config.read import read_config
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.model_zoo import CLIP, find_published_model
from mvlm.models.ops.signatures import AppendSignature, CachedAttentionSignature, Signature
from mvlm.models.quantization import plan_quantization
from mvlm.models.synthetic.checkpoint import published_projector
from mvlm.schedules.cpu.kernels import KERNELS
from mvlm.schedules.cpu.panels import PANELS

BUNDLED = Path(__file__).parents[3] / "models" / "bundled" / "mobilevlm-shapes"

# Heads, and channels of a head, of the models that the log was made for: 1.7B and 3B.
SHAPES = [(16, 128), (32, 80)]


@pytest.mark.parametrize(("heads", "head_dim"), SHAPES)
def test_operations_on_an_int8_cache(heads: int, head_dim: int) -> None:
    """A changed signature is another workload, and would leave its records unused in silence."""
    layout = CacheLayout(24, heads, head_dim, "int8")
    operations: list[Signature] = [
        AppendSignature.for_cache(layout, None, heads),
        CachedAttentionSignature.for_cache(layout, 1, heads),
    ]
    folder = shipped_logs_folder()
    assert folder is not None
    log = read_log(folder / "host-znver4")
    for op in operations:
        assert workload_key(kernel_workload(op)) in log.contents.results


@pytest.mark.extended
def test_every_record_is_a_config_of_todays_kernels() -> None:
    """Knobs that are removed or added must migrate the log: compiling would warn, or guess."""
    folder = shipped_logs_folder()
    assert folder is not None
    log = read_log(folder / "host-znver4")
    checked = 0
    with Target(dict(log.provenance.options)):
        for line, workload in enumerate(log.contents.workloads):
            signature = signature_of(Workload.from_json(json.loads(workload)).mod)
            if signature is None:
                continue
            knobs = {knob.name: knob.values for knob in KERNELS.space(signature) or ()}
            for record in log.contents.records:
                if record.workload == line:
                    config = try_read_config(record.trace)
                    assert config is not None and config.keys() == knobs.keys(), signature.text
                    assert all(value in knobs[name] for name, value in config.items())
                    checked += 1
    assert checked > 1000


def config_of(name: str) -> MobileVLMConfig:
    """A model's configuration, with as few layers as have all of its kernels."""
    bundled = read_config(BUNDLED)
    if name == "bundled":
        return bundled
    published = find_published_model(name)
    assert bundled.image is not None
    return replace(
        bundled,
        language=replace(published.decoder, num_hidden_layers=2),
        vision=replace(CLIP, num_hidden_layers=3),
        projector=published_projector(published),
        image=replace(bundled.image, size=CLIP.image_size),
        select_layer=-2,
    )


@pytest.mark.extended
@pytest.mark.parametrize(
    ("name", "kernels"), [("bundled", 10), ("MobileVLM_V2-1.7B", 15), ("MobileVLM_V2-3B", 8)]
)
def test_kernels_of_the_models_that_were_tuned(name: str, kernels: int) -> None:
    """As many as the log has winners of: a rename must migrate the log, not lose it."""
    # What the log was made for had embedding and head of 4 bits.
    plan = plan_quantization("q4a8", embedding="q4a8", head="q4a8")
    folder = shipped_logs_folder()
    assert folder is not None
    log = read_log(folder / "host-znver4")
    target, tuned = Target(dict(log.provenance.options)), TunedConfigs(ApplicableLogs((log,)))
    with target:
        module, _ = MobileVLM(config_of(name), plan, PANELS).export(target)
        for _, function in tensor_functions(module):
            tuned.kernel(function, KERNELS)
    assert not log.damaged
    assert not tuned.warnings
    assert sum(map(len, tuned.tuned.values())) == kernels
