"""A store on a disk that fills up: clear errors, and nothing half written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from mvlm.compile.jobs.coordinator import Coordinator, Options
from mvlm.compile.jobs.engines.local import LocalEngine
from mvlm.compile.jobs.errors import StoreError
from mvlm.compile.jobs.plan import Step
from mvlm.compile.jobs.states import StepState
from mvlm.compile.jobs.store import open_store
from tests.cli.command_line import mvlm
from tests.compile.jobs.fakes import fake_plan, inject_fault, key_of, use_fake_workers
from tests.reference import write_random_checkpoint


def fill(disk: Path) -> Path:
    """Leave no room on a disk; returns the file to remove."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return path


def test_disk_too_small_for_weights(small_disk: Path, tmp_path: Path) -> None:
    """Weights take more than a megabyte: the step fails at once, with what to do."""
    model = write_random_checkpoint(tmp_path / "model", "text", seed=0, num_hidden_layers=1)
    matrix = tmp_path / "matrix.toml"
    matrix.write_text(f'models = ["{model}"]\nquantizations = ["q0f32"]')
    store = small_disk / "store"
    result = mvlm("jobs", "run", matrix, "--store", store)
    assert result.exit_code == 1
    assert "its weights failed" in result.stderr and "no space left on the disk" in result.stderr
    opened = open_store(str(store))
    for folder in ("artifacts", "weights", "leases", "tmp"):
        assert opened.files.names(folder) == []
    assert opened.files.names("blobs") == [] or opened.files.names("blobs/sha256") == []


def test_disk_full_at_start(small_disk: Path, tmp_path: Path) -> None:
    model = write_random_checkpoint(tmp_path / "model", "text", seed=0, num_hidden_layers=1)
    matrix = tmp_path / "matrix.toml"
    matrix.write_text(f'models = ["{model}"]\nquantizations = ["q0f32"]')
    fill(small_disk)
    result = mvlm("jobs", "run", matrix, "--store", small_disk / "store")
    assert result.exit_code == 1
    assert "no space left on the disk" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.extended
def test_disk_fills_up_during_a_run(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even states and logs cannot be written; the run ends, and goes on when there is room."""
    use_fake_workers(monkeypatch, tmp_path)
    inject_fault(tmp_path, "a0", "sleep 1")
    store = open_store(str(small_disk / "store"))
    plan, seen = fake_plan(2), dict[str, StepState]()
    fillers: list[Path] = []

    def observe(step: Step, state: StepState) -> None:
        seen[step.name] = state
        if (step.name, state.state) == ("a0", "running"):
            fillers.append(fill(small_disk))

    engine = LocalEngine(store.files, 1, available=lambda: None)
    with suppress(StoreError):  # the run's own end may find no room either
        Coordinator(plan, store, engine, Options(first_delay=0.01), observe).run()
    assert "failed" in (seen["a0"].state, seen["a1"].state)
    assert "no space left on the disk" in seen["a0"].note + seen["a1"].note
    fillers[0].unlink()
    engine = LocalEngine(store.files, 1, available=lambda: None)
    _, states = Coordinator(plan, store, engine).run()
    assert states[key_of("a0")].state in ("done", "reused")
    assert states[key_of("a1")].state in ("done", "reused")
    for kind, folder in (("artifact", "artifacts"), ("weights", "weights")):
        for name in store.files.names(folder):
            assert store.find_complete(kind, name.removesuffix(".json"), verify=True) is not None
    assert store.files.names("leases") == [] and store.files.names("tmp") == []
