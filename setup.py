"""Packaging: the folders at the top of the repository are the packages `mvlm.<folder>`.

`mvlm` itself is a namespace package without a folder of its own (PEP 420), so that each folder's
name in the repository is its name in an import.
"""

from setuptools import find_packages, setup

FOLDERS = (
    "bench",
    "cli",
    "compile",
    "distribution",
    "models",
    "runtime",
    "schedules",
    "training",
    "tuning_logs",
)

packages = [
    name
    for folder in FOLDERS
    for name in [f"mvlm.{folder}"]
    + [f"mvlm.{folder}.{inner}" for inner in find_packages(where=folder)]
]

setup(
    packages=packages,
    package_dir={f"mvlm.{folder}": folder for folder in FOLDERS},
    package_data={
        **{name: ["py.typed"] for name in packages},
        "mvlm.compile.calibration_data": ["py.typed", "default/*.*", "default/images/*.png"],
        "mvlm.models": ["py.typed", "bundled/*", "bundled/*/*"],
        "mvlm.runtime": ["py.typed", "native/*.c"],
        "mvlm.runtime.server": ["page/*", "page/vendor/*"],
        "mvlm.runtime.targets": ["boards/*.toml"],
        "mvlm.distribution.bundle": ["launchers/*"],
        "mvlm.tuning_logs": ["*/*.json"],
    },
)
