"""Devices: what the runtime asks of one, the CPU, and one whose memory is apart from the host's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tvm
from tvm.script import tirx as T

import mvlm.runtime.model
from mvlm.runtime import loader
from mvlm.runtime.artifact import map_weights
from mvlm.runtime.chat import Chat
from mvlm.runtime.completion import Completion
from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.device.device import Device
from mvlm.runtime.device.find import DEVICES, find_device
from mvlm.runtime.device.requirements import HOST, REQUIREMENTS
from mvlm.runtime.engine import Engine, EngineSettings, Request, Trace
from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.loader import load_functions
from mvlm.runtime.measurement.kernel_runner import (
    KernelRunner,
    MeasureRequest,
    read_arguments,
    save_arguments,
)
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from tests.artifacts import ArtifactCache
from tests.examination.artifacts import BUNDLED, compile_bundled
from tests.once import make_once
from tests.runtime.engine.asking import encode
from tests.runtime.separate_device import SeparateDevice, SeparateFunctions

Floats = npt.NDArray[np.float32]

IMAGES = BUNDLED.parent / "images"
# An answer about an image, a further question, and another image in the same conversation.
TURNS = (
    ("What is in the picture?", "demo.png"),
    ("What colour is it?", None),
    ("And?", "wide.png"),
)


@pytest.fixture(scope="module")
def bundled(shared_folder: Path) -> Path:
    folder = shared_folder / "bundled-q4a8"
    return make_once(folder, lambda folder: compile_bundled("q4a8", folder)) / "q4a8"


@pytest.fixture
def small(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.artifact("ldpnet", "q4a8")


@pytest.fixture
def separate(small: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A small model on a device apart; NumPy and tvm_ffi may share no memory meanwhile."""
    return separate_model(small, monkeypatch)


def separate_model(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    device, load = SeparateDevice(), load_functions

    def loaded(folder: Path, libraries: Sequence[str], place: Device, threads: int) -> Any:
        assert place is device
        return SeparateFunctions(load(folder, libraries, place, threads), device)

    def shared(*_: object, **__: object) -> None:
        pytest.fail("memory was shared between the host and the device")

    monkeypatch.setattr(mvlm.runtime.model, "load_functions", loaded)
    monkeypatch.setattr(np, "from_dlpack", shared)
    monkeypatch.setattr(tvm_ffi, "from_dlpack", shared)
    return Model(artifact, device=device)


def device_of(model: Model) -> SeparateDevice:
    assert isinstance(model.device, SeparateDevice)
    return model.device


def converse(model: Model) -> list[Completion]:
    chat, answers = Chat(model), []
    assert model.settings.image is not None
    for question, image in TURNS:
        shown = [preprocess(load_image(IMAGES / image), model.settings.image)] if image else []
        answers.append(chat.generate(question, shown, SamplingParams(max_tokens=24)).completion)
    return answers


# --- a device with memory of its own ------------------------------------------------------------


@pytest.mark.extended
def test_a_conversation_on_a_separate_device(
    bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [answer.token_ids for answer in converse(Model(bundled))]
    assert len(expected) == len(TURNS) and all(len(ids) > 2 for ids in expected)
    found = converse(separate_model(bundled, monkeypatch))
    assert [answer.token_ids for answer in found] == expected
    assert found[0].usage.image_tokens == 36


def test_a_decode_step_copies_some_numbers_up_and_the_logits_down(separate: Model) -> None:
    engine, device = Engine(separate, EngineSettings(speculate="off")), device_of(separate)
    (answer,) = engine.submit(Request([1, 5, 6], params=SamplingParams(max_tokens=11)))
    tokens = engine.tokens(answer)
    next(tokens)
    device.copies.clear()
    assert len(list(tokens)) == 10
    # The token, and where it lies: its position, where its pages begin, its run and the pages. Then
    # the logits.
    assert device.copies == {"commit": 10 * (1 + 4), "download": 10}


def test_images_are_uploaded_once_and_stay_on_the_device(separate: Model) -> None:
    engine, device = Engine(separate), device_of(separate)
    pixels = np.zeros((1, 3, 56, 56), np.float32)
    device.copies.clear()
    encode(engine.images, pixels)
    assert device.copies == {"upload": 1}
    # The ids of each text and the wanted row, where the rows lie, and the last position's logits.
    ids, params = [1, -200, 7, 8, -200, 9], SamplingParams(max_tokens=1)
    (answer,) = engine.submit(Request(ids, [pixels, pixels], params))
    assert len(list(engine.tokens(answer))) == 1
    assert device.copies == {"upload": 1 + 3 + 1, "commit": 4, "download": 1}


def test_every_stage_is_the_same_number_on_a_separate_device(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced(model: Model) -> dict[str, npt.NDArray[Any]]:
        engine, trace = Engine(model), Trace()
        pixels = np.random.default_rng(0).standard_normal((1, 3, 56, 56), np.float32)
        ids, params = [1, 5, -200, 7, 8, -200], SamplingParams(max_tokens=4)
        (answer,) = engine.submit(Request(ids, [pixels, pixels], params, trace=trace))
        assert len(list(engine.tokens(answer))) == 4
        return trace.arrays()

    expected = traced(Model(small))
    found = traced(separate_model(small, monkeypatch))
    assert found.keys() == expected.keys()
    for stage, array in expected.items():
        np.testing.assert_array_equal(found[stage], array)


def test_arrays_of_the_host_are_refused(separate: Model) -> None:
    """Which shows that the tests above would notice."""
    with pytest.raises(AssertionError, match="a host's ndarray"):
        separate.project(np.zeros((1, 16, 64), np.float32))
    elsewhere = SeparateDevice().upload(np.zeros((1, 16, 64), np.float32))
    with pytest.raises(AssertionError, match="not in the device's memory"):
        separate.project(elsewhere)


def test_the_device_is_waited_for_before_a_clock_is_read(
    separate: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, reads = device_of(separate), 0

    def clock(read: Callable[[], float] = time.perf_counter) -> float:
        nonlocal reads
        assert not device.is_busy, "a clock was read while the device was at work"
        reads += 1
        return read()

    monkeypatch.setattr(time, "perf_counter", clock)
    converse(separate)
    assert reads > 50
    profiler, reads = separate.profiler(), 0
    Engine(separate).logits([1, *range(5, 25)])
    kernels = profiler.times()["prefill_all"]
    assert reads > 2 * sum(kernel.calls for kernel in kernels) > 50


@T.prim_func(s_tir=True)
def doubled(x_handle: T.handle, y_handle: T.handle):
    """Double a vector."""
    x = T.match_buffer(x_handle, (64,), "float32")
    y = T.match_buffer(y_handle, (64,), "float32")
    for i in T.serial(64):
        with T.sblock("double"):
            y[i] = x[i] * T.float32(2)


def test_kernels_are_measured_on_a_separate_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tvm.IRModule({"main": doubled.with_attr("global_symbol", "main")})
    tvm.compile(module, target="llvm").export_library(str(tmp_path / "kernel.so"))
    x = np.arange(64, dtype=np.float32)
    save_arguments(tmp_path / "in.npz", [x, np.zeros_like(x)])
    device = SeparateDevice()
    waits, waited = 0, device.synchronize

    def synchronize() -> None:
        nonlocal waits
        waits += 1
        waited()

    monkeypatch.setattr(device, "synchronize", synchronize)
    request = MeasureRequest("in.npz", ("kernel.so",), 3, False, "out.npz")
    (seconds,) = KernelRunner(tmp_path, 1, device).run(request)["seconds"]
    assert len(seconds) == 3 and min(seconds) > 0
    assert waits >= 2 * (1 + 3), "before and after each sample, and the warm-up"
    # Both arguments for the outputs and for the samples; then both outputs.
    assert device.copies == {"upload": 4, "download": 2}
    np.testing.assert_array_equal(read_arguments(tmp_path / "out.npz")[1], 2 * x)


# --- the CPU ------------------------------------------------------------------------------------


def test_weights_are_not_copied(artifact_cache: ArtifactCache) -> None:
    device, mapped = CpuDevice(), map_weights(artifact_cache.artifact("text"))
    assert len(mapped) > 10
    for array in mapped:
        assert device.upload(array).data_ptr() == array.ctypes.data


@pytest.mark.parametrize("offset", [0, 4, 16, 32])
def test_arrays_are_copied_where_compiled_code_could_not_read_them(offset: int) -> None:
    room = np.zeros(64 * 4 + 128, np.uint8)
    begin = -room.ctypes.data % 64 + offset
    array = room[begin : begin + 256].view(np.float32)
    array[:] = np.arange(64)
    uploaded = CpuDevice().upload(array)
    assert uploaded.data_ptr() % 64 == 0
    assert (uploaded.data_ptr() == array.ctypes.data) == (offset == 0)
    np.testing.assert_array_equal(CpuDevice().download(uploaded), array)


def test_a_download_is_a_copy() -> None:
    device = CpuDevice()
    buffer = device.staging((1, 3), "int32")
    buffer.host[:] = 7
    buffer.commit()
    found = device.download(buffer.array)
    buffer.host[:] = 8
    np.testing.assert_array_equal(found, [[7, 7, 7]])
    np.testing.assert_array_equal(device.download(buffer.array), [[8, 8, 8]])


def devices() -> list[Device]:
    return [CpuDevice(), SeparateDevice()]


@pytest.mark.parametrize("device", devices(), ids=lambda device: type(device).__name__)
@pytest.mark.parametrize("width", [5, 16])
def test_rows_are_cut_and_joined(device: Device, width: int) -> None:
    values = np.random.default_rng(0).standard_normal((1, 9, width), np.float32)
    whole = device.upload(values.copy())
    cuts = [(0, 2), (2, 3), (3, 9)]
    parts = [device.rows(whole, begin, end) for begin, end in cuts]
    for part, (begin, end) in zip(parts, cuts, strict=True):
        assert part.shape == (1, end - begin, width)
        np.testing.assert_array_equal(device.download(part), values[:, begin:end])
    joined = device.concatenate([parts[2], whole, parts[0]])
    expected = np.concatenate([values[:, 3:], values, values[:, :2]], axis=1)
    np.testing.assert_array_equal(device.download(joined), expected)
    np.testing.assert_array_equal(device.download(device.concatenate([whole])), values)
    np.testing.assert_array_equal(device.download(device.rows(whole, 0, 9)), values)


@pytest.mark.parametrize("device", devices(), ids=lambda device: type(device).__name__)
@pytest.mark.parametrize("shape", [(3, 5), (4, 2, 3, 7)])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_row_is_copied(device: Device, shape: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(0).integers(-99, 99, shape).astype(dtype)
    array = device.upload(values.copy())
    device.copy_row(array, 2, 0)
    device.copy_row(array, 1, 1)
    np.testing.assert_array_equal(device.download(array), values[[2, 1, *range(2, shape[0])]])


@pytest.mark.parametrize("device", devices(), ids=lambda device: type(device).__name__)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_row_is_read_and_written(device: Device, dtype: str) -> None:
    values = np.random.default_rng(0).integers(-99, 99, (3, 2, 5)).astype(dtype)
    array = device.upload(values.copy())
    row = device.read_row(array, 2)
    device.write_row(array, 0, row)
    np.testing.assert_array_equal(device.download(array), values[[2, 1, 2]])
    # What was read is a copy.
    device.write_row(array, 2, np.ascontiguousarray(values[1]))
    np.testing.assert_array_equal(row, values[2])
    assert row.dtype == dtype


@pytest.mark.parametrize("device", devices(), ids=lambda device: type(device).__name__)
def test_an_empty_array_has_its_shape_and_type(device: Device) -> None:
    array = device.empty((2, 3, 4), "float16")
    assert (array.shape, str(array.dtype)) == ((2, 3, 4), "float16")
    assert array.data_ptr() % 64 == 0


# --- kinds of devices ---------------------------------------------------------------------------


def test_every_kind_has_a_device_and_its_requirements() -> None:
    assert DEVICES.keys() == REQUIREMENTS.keys()
    assert {kind: find_device(kind).kind for kind in DEVICES} == {kind: kind for kind in DEVICES}
    assert HOST in DEVICES


class OtherDevice(SeparateDevice):
    """As OpenCL's, by its numbers."""

    kind = "other"
    dlpack_type = 4
    index = 2


@pytest.mark.parametrize(
    ("device", "expected"), [(CpuDevice(), (1, 0, 2)), (OtherDevice(), (4, 2, 2, 1, 0, 2))]
)
def test_the_virtual_machine_has_the_device_and_then_the_cpu(
    device: Device,
    expected: tuple[int, ...],
    artifact_cache: ArtifactCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Type, index and allocator of each."""
    given: list[int] = []
    machine = {"vm_initialization": lambda *numbers: given.extend(numbers)}
    library = {"vm_load_executable": lambda: machine}
    monkeypatch.setattr(loader.tvm_ffi, "load_module", lambda path: library)
    load_functions(artifact_cache.artifact("text"), ["lib/libtvm_runtime.so"], device, 1)
    assert tuple(given) == expected
