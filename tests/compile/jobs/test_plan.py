"""From matrices to steps, and all that can be wrong, told at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.compile.calibration_data.request import CalibrationRequest
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.compile.jobs.matrix import MatrixError, read_matrix
from mvlm.compile.jobs.messages import ARTIFACT, WEIGHTS, StepRequest, parse_step_request
from mvlm.compile.jobs.plan import MatrixPlan, plan_matrix
from mvlm.compile.memory import PROGRAM_BYTES, layer_bytes, peak_bytes
from mvlm.models.layers import packed_layers
from mvlm.runtime.errors import ArtifactError, TargetError
from tests.adapters import write_adapter
from tests.compile.jobs.boards import write_board
from tests.reference import write_random_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and a board's file."""
    folder = tmp_path_factory.mktemp("models")
    write_random_checkpoint(folder / "text", "text", seed=0, num_hidden_layers=1)
    write_random_checkpoint(folder / "seeing", "ldpnetv2_odd", seed=0)
    write_board(folder / "board.toml")
    return folder


def plan(folder: Path, text: str) -> MatrixPlan:
    path = folder / "matrix.toml"
    path.write_text(text, encoding="utf-8")
    return plan_matrix(read_matrix(path), folder / "logs")


def test_targets_share_weights(folder: Path) -> None:
    made = plan(
        folder,
        """
        models = ["text", "seeing"]
        quantizations = ["q4a8", "q8a8"]
        targets = ["host", "board.toml", "snapdragon-888-cpu"]
        """,
    )
    weights = [step for step in made.steps if step.kind == WEIGHTS]
    assert (len(weights), len(made.artifacts)) == (4, 12)
    assert len({step.key for step in made.steps}) == 16
    assert made.steps[:4] == tuple(weights)
    for step in made.artifacts:
        assert sum(step.weights == each.key for each in weights) == 1
    assert made.artifacts[0].name == "text/q4a8/host"
    assert made.artifacts[1].name == "text/q4a8/board"
    assert made.artifacts[0].labels["target"] == "host"


def test_targets_whose_kernels_read_another_layout_have_their_own_weights(folder: Path) -> None:
    made = plan(
        folder,
        'models = ["text"]\nquantizations = ["q4a8"]\ntargets = ["host", "portable", "board.toml"]',
    )
    panels, rows = (step for step in made.steps if step.kind == WEIGHTS)
    assert (panels.name, rows.name) == ("text/q4a8 weights (panels16)", "text/q4a8 weights (rows)")
    assert [step.weights for step in made.artifacts] == [panels.key, rows.key, panels.key]


def test_kv_cache_type_changes_no_weights(folder: Path) -> None:
    made = plan(
        folder,
        'models = ["text"]\nquantizations = ["q4a8", { scheme = "q4a8", cache = "float32" }]',
    )
    assert len(made.artifacts) == 2 and len(made.steps) == 3


def test_duplicate_jobs_are_planned_once(folder: Path) -> None:
    (folder / "other.toml").write_text('models = ["text"]\nquantizations = ["q4a8", "q8a8"]')
    made = plan(folder, 'models = ["text"]\ninclude = ["other.toml"]')
    assert [step.name for step in made.artifacts] == ["text/q4a8/host", "text/q8a8/host"]


def test_models_of_one_name_get_distinct_labels(folder: Path) -> None:
    write_random_checkpoint(folder / "inner" / "text", "text", seed=1, num_hidden_layers=1)
    made = plan(folder, 'models = ["text", "inner/text"]')
    inner, outer = "inner-text", f"{folder.resolve().name}-text"
    assert [step.name for step in made.artifacts] == [f"{outer}/q4a8/host", f"{inner}/q4a8/host"]
    assert [step.labels["model"] for step in made.artifacts] == [outer, inner]
    (folder / "other.toml").write_text('models = [{ path = "inner/text", name = "a" }]')
    made = plan(folder, 'models = [{ path = "text", name = "a" }]\ninclude = ["other.toml"]')
    names = [step.name for step in made.artifacts]
    assert len(set(names)) == 2 and all(name.startswith("a/q4a8/host-") for name in names)


def test_adapters_of_one_name_get_distinct_labels(folder: Path) -> None:
    for run in ("a", "b"):
        place = folder / "runs" / run / "checkpoint-500"
        write_adapter(folder / "text", place, seed=ord(run), target_modules=["q_proj"])
    adapters = '["runs/a/checkpoint-500", "runs/b/checkpoint-500"]'
    made = plan(folder, f'models = ["text"]\nadapters = {adapters}')
    names = ["a-checkpoint-500", "b-checkpoint-500"]
    assert [step.labels["adapter"] for step in made.artifacts] == names
    assert [step.name for step in made.steps if step.kind == ARTIFACT] == [
        f"text+{name}/q4a8/host" for name in names
    ]
    assert len({step.key for step in made.steps}) == len({step.name for step in made.steps}) == 4


def test_step_request_round_trip(folder: Path) -> None:
    steps = plan(folder, 'models = ["seeing"]\ntargets = ["host", "board.toml"]').steps
    assert len(steps) == 3
    for step in steps:
        asked = StepRequest(step.kind, step.key, step.name, step.weights, step.job, "store", "run")
        again = parse_step_request(asked.to_json())
        assert again == asked
        job = again.job.plan(folder / "logs")
        key = job.key() if step.kind == ARTIFACT else job.weights_key()
        assert key == step.key


def test_plans_of_bits_are_read_from_files_beside_the_matrix(folder: Path) -> None:
    layer = {"attention": "q4a8", "gate_up": "q3a8", "down": "q8a8"}
    (folder / "bits.json").write_text(json.dumps({"layers": [layer]}))
    made = plan(
        folder,
        """
        models = ["text"]
        quantizations = ["q4a8", { scheme = "q4a8", plan = "bits.json" }]
        """,
    )
    assert len({step.key for step in made.steps}) == 4
    planned = made.artifacts[1]
    assert planned.name == "text/q4a8,plan=bits.json/host"
    (folder / "bits.json").unlink()  # workers need not see the file
    asked = StepRequest(ARTIFACT, planned.key, "", planned.weights, planned.job, "store", "run")
    again = parse_step_request(asked.to_json())
    assert again == asked
    found = again.job.plan(folder / "logs").quantization.plan
    assert found is not None and found.to_json() == {"layers": [layer]}
    (folder / "bits.json").write_text(json.dumps({"layers": [layer, layer]}))
    with pytest.raises(MatrixError, match=r"quantizations\[0\].*schemes for its 1 layers, found 2"):
        plan(folder, 'models = ["text"]\nquantizations = [{ scheme = "q4a8", plan = "bits.json" }]')
    (folder / "bits.json").write_text("[]")
    with pytest.raises(MatrixError, match=r"quantizations\[0\].*bits\.json is wrong"):
        plan(folder, 'models = ["text"]\nquantizations = [{ scheme = "q4a8", plan = "bits.json" }]')


CALIBRATED = """
    models = ["text"]
    quantizations = [
        "q4a8",
        { scheme = "q4a8", calibrate = "default", calibration_tokens = 2048 },
        { scheme = "q4a8", calibrate = ["own.txt"], calibration_tokens = 2048 },
    ]
"""


def write_own_text(folder: Path, tokens: int = 4000) -> None:
    (folder / "own.txt").write_text("A red circle is left of a blue square. " * (tokens // 8))


def test_data_are_drawn_once_for_all_targets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own_text(folder)
    drawn, read = [], CalibrationRequest.read

    def counted(request: CalibrationRequest, model: ModelInput) -> CalibrationData:
        drawn.append(request)
        return read(request, model)

    monkeypatch.setattr(CalibrationRequest, "read", counted)
    made = plan(folder, CALIBRATED + '    targets = ["host", "portable", "board.toml"]')
    assert [len(each.sources) for each in drawn] == [0, 1]
    weights = [step for step in made.steps if step.kind == WEIGHTS]
    assert (len(weights), len(made.artifacts)) == (6, 9)
    assert len({step.key for step in made.steps}) == 15
    named = [step.name for step in made.artifacts if step.labels["target"] == "host"]
    schemes = ("q4a8", "q4a8,calibrate=default", "q4a8,calibrate=own.txt")
    tokens = ",calibration_tokens=2048"
    assert named == [f"text/{each}{tokens if 'cal' in each else ''}/host" for each in schemes]
    plain, calibrated = weights[0].memory, weights[2].memory
    assert calibrated > plain


def test_workers_plan_calibrated_jobs_with_the_same_keys(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_text(folder)
    steps = plan(folder, CALIBRATED).steps
    requests = [
        StepRequest(step.kind, step.key, step.name, step.weights, step.job, "store", "run")
        for step in steps
    ]
    again = [parse_step_request(each.to_json()) for each in requests]
    assert again == requests
    for asked in again:
        job = asked.job.plan(folder / "logs")
        key = job.key() if asked.kind == ARTIFACT else job.weights_key()
        assert key == asked.key
    own = next(each for each in again if each.kind == WEIGHTS and "own.txt" in each.name)
    assert own.job.calibration is not None
    assert own.job.calibration.sources == (str(folder.resolve() / "own.txt"),)
    (folder / "own.txt").write_text("The data have become others. " * 2000)
    assert own.job.plan().weights_key() != own.key
    # An artifact over packed weights needs no data.
    monkeypatch.setattr(CalibrationRequest, "read", None)
    artifact = next(each for each in again if each.kind == ARTIFACT and "own.txt" in each.name)
    job = artifact.job.plan(folder / "logs")
    assert job.key(artifact.job.digest, artifact.job.data_digest) == artifact.key


def test_malformed_step_requests() -> None:
    for text in ("", "{}", "[]", '{"kind": 1}'):
        with pytest.raises(ArtifactError):
            parse_step_request(text)
    wrong = '{"kind":"a","key":"k","name":"n","weights":"w","job":{"quantization":{},"target":{}}}'
    with pytest.raises((ArtifactError, TargetError)):
        parse_step_request(wrong)


@pytest.mark.parametrize("scheme", ["q4a8", "q0f32", "q4f16_1"])
@pytest.mark.parametrize("model", ["text", "seeing"])
def test_memory_estimate_covers_the_compiler(folder: Path, model: str, scheme: str) -> None:
    made = plan(folder, f'models = ["{model}"]\nquantizations = ["{scheme}"]')
    weights, artifact = made.steps
    job = weights.job.plan()
    layers, checkpoint = packed_layers(job.build_model()), job.open_checkpoint()
    needed = peak_bytes(layer_bytes(layer, checkpoint) for _, layer in layers)
    assert needed <= weights.memory < needed + (64 << 20)
    assert artifact.memory == PROGRAM_BYTES


# --- mistakes -----------------------------------------------------------------------------------


def test_plan_reports_all_errors_at_once(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.toml").write_text("schema = 1\nnam = 3")
    with pytest.raises(MatrixError) as caught:
        plan(
            folder,
            """
            models = ["text", "txet"]
            quantizations = ["q4a8", "q3"]
            targets = ["host", "hots", "bad.toml", "jetson-orin"]
            adapters = ["none", "flowers"]
            """,
        )
    message = str(caught.value)
    assert "has 6 mistakes" in message
    for part in (
        "models[1] (txet): ",
        "quantizations[1] (q3): unknown quantization",
        "targets[1] (hots): unknown target: expected host or portable",
        "targets[2] (bad.toml): ",
        "targets[3] (jetson-orin): this mvlm has no kernels for cuda yet",
        "models[0] (text) with adapters[1] (flowers): ",
    ):
        assert message.count(part) == 1, part
    assert caught.value.exit_code == 2


def test_plan_reports_a_single_error(folder: Path) -> None:
    with pytest.raises(
        MatrixError, match=r"^matrix\.toml: models\[0\] \(nowhere\): .*is not a folder"
    ):
        plan(folder, 'models = ["nowhere"]')
    with pytest.raises(MatrixError, match=r"the platform of board: expected linux, found android"):
        plan(folder, 'models = ["text"]\ntargets = ["board.toml"]\nplatform = "android"')
    with pytest.raises(MatrixError, match=r"models\[0\] \(text\): --context: expected 2 to 2048"):
        plan(folder, 'models = ["text"]\ncontext = 4096')


def test_plan_reports_all_mistakes_of_calibration(folder: Path) -> None:
    write_own_text(folder)
    (folder / "short.txt").write_text("Too short.")
    with pytest.raises(MatrixError) as caught:
        plan(
            folder,
            """
            models = ["text", "seeing"]
            targets = ["host", "portable"]
            quantizations = [
                { scheme = "q4a8", calibrate = "default", calibration_tokens = 5 },
                { scheme = "q4a8", calibrate = ["default", "own.txt"] },
                { scheme = "q4a8", calibrate = "absent.txt" },
                { scheme = "q4a8", calibrate = "short.txt" },
                { scheme = "q4a8", calibrate = "own.txt", calibration_images = "absent" },
                { scheme = "q4a8", calibrate = "own.txt" },
            ]
            """,
        )
    message = str(caught.value)
    assert "has 8 mistakes" in message
    for part in (
        "quantizations[0] (q4a8,calibrate=default,calibration_tokens=5): tokens to calibrate with",
        "quantizations[1] (q4a8,calibrate=default+own.txt): calibration takes its default data",
        "models[0] (text) with quantizations[2] (q4a8,calibrate=absent.txt): there is no file",
        "models[1] (seeing) with quantizations[2] (q4a8,calibrate=absent.txt): there is no file",
        "models[0] (text) with quantizations[3] (q4a8,calibrate=short.txt): there is too little",
        "models[1] (seeing) with quantizations[4] (q4a8,calibrate=own.txt,calibration_images=absent"
        "): there is no folder",
    ):
        assert message.count(part) == 1, part
    assert "quantizations[5]" not in message


def test_plan_refuses_an_adapter_of_another_kind(folder: Path) -> None:
    (folder / "flowers").mkdir(exist_ok=True)
    save_file({"x": torch.zeros(1)}, folder / "flowers" / "adapter_model.safetensors")
    with pytest.raises(MatrixError, match=r"adapters\[0\] \(flowers\)"):
        plan(folder, 'models = ["text"]\nadapters = ["flowers"]')
    (folder / "flowers" / "adapter_model.safetensors").unlink()
    (folder / "flowers").rmdir()


def test_plan_refuses_an_adapter_for_another_model(folder: Path) -> None:
    """It is found before anything is run."""
    write_adapter(folder / "text", folder / "birds", target_modules=["q_proj"])
    write_random_checkpoint(folder / "wide", "text", seed=1, hidden_size=256)
    with pytest.raises(
        MatrixError,
        match=r"models\[1\] \(wide\) with adapters\[0\] \(birds\): .* is for another model",
    ):
        plan(folder, 'models = ["text", "wide"]\nadapters = ["birds"]')


def test_planning_imports_no_compiler(folder: Path) -> None:
    (folder / "light.toml").write_text(
        'models = ["text"]\ntargets = ["host", "snapdragon-888-cpu"]'
    )
    program = (
        "import sys; from pathlib import Path;"
        "from mvlm.compile.jobs.matrix import read_matrix;"
        "from mvlm.compile.jobs.plan import plan_matrix;"
        "from mvlm.compile.jobs.coordinator import Coordinator;"
        "assert len(plan_matrix(read_matrix(Path(sys.argv[1])), Path(sys.argv[2])).steps) == 3;"
        "print({'tvm', 'torch', 'ray', 'fsspec', 'rich'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", program, folder / "light.toml", folder / "logs"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
