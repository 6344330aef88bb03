"""An artifact's libraries in a process: loaded once, with the threads that were asked for."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mvlm.compile.toolchain import find_linker
from mvlm.runtime.artifact.layout import MODEL_LIBRARY, RUNTIME_LIBRARY
from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.engine import Engine
from mvlm.runtime.errors import ArtifactError, UsageError
from mvlm.runtime.loader import load_functions
from mvlm.runtime.model import Model
from mvlm.runtime.targets import find_description
from mvlm.runtime.targets.platforms import PLATFORMS
from tests.artifacts import ArtifactCache

FRESH = """
import json, sys, threading
from pathlib import Path
import numpy as np
from mvlm.runtime.engine import Engine
from mvlm.runtime.model import Model

def answer(folder, threads):
    model = Model(Path(folder), threads)
    assert computing() == model.threads
    return Engine(model).logits([1, 5, 6, 7]).tolist()

def computing():
    return 1 + sum(each.name.startswith("mvlm-worker") for each in threading.enumerate())

def libraries(name):
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split()[-1] for line in lines if line.endswith(name)})
"""


def run_fresh(code: str, **environment: str) -> object:
    """Run `code` after FRESH in an interpreter of its own, which prints JSON."""
    result = subprocess.run(
        [sys.executable, "-c", FRESH + code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_the_artifacts_own_runtime_is_loaded(artifact_cache: ArtifactCache) -> None:
    artifact = artifact_cache.artifact("text")
    found = run_fresh(f"""
answer({str(artifact)!r}, 1)
print(json.dumps(libraries("libtvm_runtime.so") + libraries("model.so")))
""")
    assert found == [str(artifact / RUNTIME_LIBRARY), str(artifact / MODEL_LIBRARY)]


def test_two_artifacts_share_the_first_ones_runtime(artifact_cache: ArtifactCache) -> None:
    first, second = artifact_cache.artifact("text"), artifact_cache.artifact("linear")
    found = run_fresh(f"""
both = [answer(folder, 1) for folder in ({str(first)!r}, {str(second)!r}, {str(first)!r})]
print(json.dumps([libraries("libtvm_runtime.so"), both[0] == both[2], both[0] != both[1]]))
""")
    assert found == [[str(first / RUNTIME_LIBRARY)], True, True]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_are_those_asked_for(artifact_cache: ArtifactCache, threads: int) -> None:
    """Whatever the environment says, and with the same numbers out."""
    artifact = str(artifact_cache.artifact("ldpnet"))
    found = run_fresh(
        f"""
model = Model(Path({artifact!r}), {threads})
print(json.dumps([computing(), answer({artifact!r}, {threads})]))
""",
        TVM_NUM_THREADS="7",
        OMP_NUM_THREADS="1",
    )
    assert isinstance(found, list)
    assert found[0] == threads
    model = Model(Path(artifact), 1)
    assert found[1] == Engine(model).logits([1, 5, 6, 7]).tolist()


def test_the_calling_thread_stays_where_it_was_allowed_to_run(
    artifact_cache: ArtifactCache,
) -> None:
    artifact = str(artifact_cache.artifact("text"))
    found = run_fresh(f"""
import os
before = os.sched_getaffinity(0)
answer({artifact!r}, 1)
print(json.dumps(before == os.sched_getaffinity(0)))
""")
    assert found is True


def test_a_process_may_be_bound_to_one_core(artifact_cache: ArtifactCache) -> None:
    artifact = str(artifact_cache.artifact("text"))
    found = run_fresh(f"""
import os
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
model = Model(Path({artifact!r}), None)
print(json.dumps([computing(), len(os.sched_getaffinity(0))]))
""")
    assert found == [1, 1]


@pytest.mark.parametrize("threads", [0, -1])
def test_zero_threads_are_refused(artifact_cache: ArtifactCache, threads: int) -> None:
    with pytest.raises(UsageError, match="threads: expected 1 to 1024"):
        load_functions(artifact_cache.artifact("text"), [RUNTIME_LIBRARY], CpuDevice(), threads)


def test_all_cores_by_default(artifact_cache: ArtifactCache) -> None:
    assert Model(artifact_cache.artifact("text")).threads == len(os.sched_getaffinity(0))


def test_an_unloadable_model_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / MODEL_LIBRARY).write_bytes(b"\x7fELF and no more")
    with pytest.raises(ArtifactError, match=r"model\.so cannot be loaded: found .*Compile"):
        load_functions(tmp_path, [RUNTIME_LIBRARY], CpuDevice(), 1)


def test_an_unloadable_runtime_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / RUNTIME_LIBRARY).write_bytes(b"\x7fELF and no more")
    found = run_fresh(f"""
from mvlm.runtime.errors import ArtifactError
from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.loader import load_functions
try:
    load_functions(Path({str(tmp_path)!r}), [{RUNTIME_LIBRARY!r}], CpuDevice(), 1)
except ArtifactError as error:
    print(json.dumps(str(error)))
""")
    assert "libtvm_runtime.so cannot be loaded" in str(found)


_EXTENSION = """
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
__attribute__((constructor)) static void opened(void) {
  char text[256] = "";
  const char *before = getenv("OPENED");
  if (before) strncat(text, before, 200);
  strcat(text, dlopen("libtvm_runtime.so", RTLD_LAZY | RTLD_NOLOAD) ? "second" : "first");
  setenv("OPENED", text, 1);
}
"""


def test_extensions_are_loaded_once_between_tvms_runtime_and_the_model(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    """Even where two artifacts have one each: a process can hold one only."""
    name, needs = "libmvlm_extension.so", find_description("host").needs
    linker = find_linker(platform.machine(), PLATFORMS["linux"], needs)
    source = tmp_path / "extension.c"
    source.write_text(_EXTENSION)
    folders = []
    for family in ("text", "linear"):
        folder = Path(shutil.copytree(artifact_cache.artifact(family), tmp_path / family))
        named = ("-shared", "-fPIC", f"-Wl,-soname,{name}")
        linker.run("linking", *named, "-o", folder / "lib" / name, source)
        folders.append(folder)
    found = run_fresh(f"""
import ctypes
from mvlm.runtime import loader
from mvlm.runtime.device.cpu import CpuDevice
opened, load_module, order = ctypes.CDLL, loader.tvm_ffi.load_module, []
def noted(path, *mode):
    library = opened(path, *mode)
    order.extend([path] if mode else [])  # the thread pool opens the model once more
    return library
ctypes.CDLL = noted
loader.tvm_ffi.load_module = lambda path: order.append(str(path)) or load_module(path)
names = ["lib/libtvm_runtime.so", "lib/{name}"]
for folder in {[*map(str, folders)]!r}:
    loader.load_functions(Path(folder), names, CpuDevice(), 1)["decode"]
get = opened(None).getenv
get.restype = ctypes.c_char_p
print(json.dumps([order, get(b"OPENED").decode(), libraries("{name}")]))
""")
    first, second = folders
    order = [str(first / path) for path in (RUNTIME_LIBRARY, f"lib/{name}", MODEL_LIBRARY)]
    assert found == [[*order, name, str(second / MODEL_LIBRARY)], "second", [order[1]]]


def test_an_unloadable_extension_is_named(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(artifact_cache.artifact("text"), tmp_path / "artifact"))
    (copy / "lib" / "libextension.so").write_bytes(b"no library")
    with pytest.raises(ArtifactError, match=r"libextension\.so cannot be loaded"):
        load_functions(copy, [RUNTIME_LIBRARY, "lib/libextension.so"], CpuDevice(), 1)


def test_models_are_loaded_and_freed_repeatedly(artifact_cache: ArtifactCache) -> None:
    """A process that changes models neither crashes nor mixes them up."""
    artifacts = [str(artifact_cache.artifact(family)) for family in ("text", "ldpnet", "linear")]
    found = run_fresh(f"""
import gc
rounds = []
for _ in range(3):
    rounds.append([answer(folder, 1) for folder in {artifacts!r}])
    gc.collect()
print(json.dumps(rounds[0] == rounds[1] == rounds[2]))
""")
    assert found is True
