"""Every test of a kernel runs on this machine, and on demand on an emulated Armv8.2 device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from tests.arm.device import ArmDevice, emulated
from tests.device import Device, Host, has, tested

_HOST = Host()


def _host(_: Path) -> AbstractContextManager[Device]:
    return nullcontext(_HOST)


_DEVICES = {"host": (_host, _HOST.target), "armv8.2": (emulated, ArmDevice.target)}
_PARAMETERS = [
    pytest.param("host", id="host"),
    pytest.param("armv8.2", id="armv8.2", marks=pytest.mark.arm),
]


@pytest.fixture(scope="session", autouse=True, params=_PARAMETERS)
def chosen_device(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Device]:
    """The device that kernels are compiled for and run on."""
    start: Callable[[Path], AbstractContextManager[Device]]
    start, _ = _DEVICES[request.param]
    with start(tmp_path_factory.mktemp("device")) as device, tested(device):
        yield device


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take away the instruction sets that a device does not have."""

    def is_possible(item: pytest.Item) -> bool:
        parameters = (
            item.callspec.params
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else {}
        )
        if not {"instructions", "chosen_device"} <= parameters.keys():
            return True
        _, target = _DEVICES[parameters["chosen_device"]]
        return has(target, parameters["instructions"].features)

    impossible = [item for item in items if not is_possible(item)]
    if impossible:
        config.hook.pytest_deselected(items=impossible)
        items[:] = [item for item in items if item not in set(impossible)]
