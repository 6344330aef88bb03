"""Reads a matrix file: which models are compiled, how, and for what.

.. code-block:: toml

    store = "file:///srv/mvlm"
    models = ["MobileVLM-1.7B", { path = "MobileVLM_V2-1.7B" }]
    quantizations = ["q4a8", { scheme = "q4a8", vision = "q8a8", calibrate = "default" }]
    targets = ["host", "snapdragon-888-cpu", "boards/mine.toml"]
    adapters = ["none", "flowers"]
    logs = ["tuning_logs"]
    exclude = [{ target = "host", quantization = "q4f16_1" }]
    include = ["more.toml"]

Paths are relative to the file. Every model is compiled with every adapter, scheme and target, but
for what is excluded; other matrix files add theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from mvlm.runtime.errors import UsageError
from mvlm.runtime.toml_file import FieldError, TomlFile, nearest, shown

NO_ADAPTER = "none"
MAX_JOBS = 10_000
_MAX_FILES = 100
_FIX = "docs/jobs.md shows a matrix that is right."


class MatrixError(UsageError):
    """A matrix file is wrong."""


@dataclass(frozen=True)
class ModelEntry:
    """A checkpoint.

    Attributes:
        path: Its folder.
        vision_tower: The folder of a V1's CLIP, where it would not be found.
        name: By which `exclude` and reports call it; the path as it is written if empty.
    """

    path: str
    vision_tower: str = ""
    name: str = ""


@dataclass(frozen=True)
class QuantizationEntry:
    """Schemes and calibration, by the names of ``mvlm compile``'s options.

    A scheme that is empty is the one that goes with `scheme`.

    Attributes:
        scheme: Of the decoder's layers.
        embedding: Of the embedding table.
        head: Of the output head.
        vision: Of tower and projector.
        cache: Of keys and values.
        rounding: How scales are chosen.
        ffn: Of the MLPs of the decoder's layers.
        bits: Of a weight of the decoder's layers, on average; see ``mvlm compile --bits``.
        plan: The file of a plan of bits; see ``mvlm compile --plan``.
        calibrate: Files of data to calibrate with, or ``default`` alone; no calibration if None.
        calibration_images: The folder of the images that the data name; each file's own if empty.
        calibration_tokens: Positions to calibrate with; the default number if None.
        calibration_seed: Chooses the samples that are drawn; the default if None.
        name: By which `exclude` and reports call it; what it is made of if empty.
    """

    scheme: str
    embedding: str = ""
    head: str = ""
    vision: str = ""
    cache: str = ""
    rounding: str = ""
    ffn: str = ""
    bits: float | None = None
    plan: str = ""
    calibrate: tuple[str, ...] | None = None
    calibration_images: str = ""
    calibration_tokens: int | None = None
    calibration_seed: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.calibrate is None:
            for key in self._settings():
                raise FieldError(key, "`calibrate` with it, such as calibrate = 'default'", "none")
        elif not self.calibrate:
            raise FieldError("calibrate", "files of data, or 'default'", "an empty list")

    @property
    def label(self) -> str:
        """Its name, or what it is made of: ``q4a8`` or ``q4a8,vision=q8a8,calibrate=default``."""
        options = {key: value for key, value in self.schemes().items() if key != "scheme"}
        if self.bits is not None:
            options["bits"] = f"{self.bits:g}"
        if self.plan:
            options["plan"] = self.plan
        if self.calibrate is not None:
            options |= {"calibrate": "+".join(self.calibrate), **self._settings()}
        made_of = (f"{key}={value}" for key, value in options.items())
        return self.name or ",".join((self.scheme, *made_of))

    def schemes(self) -> dict[str, str]:
        """Return the schemes that are not left open."""
        names = ("scheme", "embedding", "head", "vision", "cache", "rounding", "ffn")
        return {name: value for name in names if (value := getattr(self, name))}

    def _settings(self) -> dict[str, str]:
        """Return what is said of calibration beside the data, as it is written."""
        names = ("calibration_images", "calibration_tokens", "calibration_seed")
        values = {name: getattr(self, name) for name in names}
        return {name: str(value) for name, value in values.items() if value not in (None, "")}


@dataclass(frozen=True)
class Exclusion:
    """What is left out: all jobs that have all of these."""

    model: str = ""
    adapter: str = ""
    quantization: str = ""
    target: str = ""

    def __post_init__(self) -> None:
        if not self.named():
            raise FieldError("", "model, adapter, quantization or target", "an empty table")

    def named(self) -> dict[str, str]:
        """Return what must agree."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in values.items() if value}


@dataclass(frozen=True)
class MatrixFile:
    """The keys of one file; the module's docstring has an example.

    Attributes:
        models: Checkpoints.
        quantizations: Schemes.
        targets: Names of targets, or their files.
        adapters: Folders of LoRA adapters, or ``none`` for the model as it is.
        platform: The system that the devices run; each one's usual one if empty.
        context: Positions of the KV cache; what each model was trained for if 0.
        logs: Folders of tuning logs, as of ``mvlm compile --logs``; the planner's own if None.
        exclude: What is left out.
        include: Other matrix files.
        store: Where results go, unless the command line says otherwise.
    """

    models: tuple[ModelEntry, ...] = ()
    quantizations: tuple[QuantizationEntry, ...] = (QuantizationEntry("q4a8"),)
    targets: tuple[str, ...] = ("host",)
    adapters: tuple[str, ...] = (NO_ADAPTER,)
    platform: str = ""
    context: int = 0
    logs: tuple[str, ...] | None = None
    exclude: tuple[Exclusion, ...] = ()
    include: tuple[str, ...] = ()
    store: str = ""

    def __post_init__(self) -> None:
        for key in ("quantizations", "targets", "adapters"):
            if not getattr(self, key):
                raise FieldError(key, "one at least", "an empty list")
        if not self.models and not self.include:
            raise FieldError("models", "one at least, or other files to include", "none")
        if self.context < 0:
            raise FieldError("context", "a number above 0", self.context)
        for key, names in self.axes().items():
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise FieldError(_LISTS[key], "each once", repr(twice))
        for index, exclusion in enumerate(self.exclude):
            for key, name in exclusion.named().items():
                if name not in self.axes()[key]:
                    place = f"exclude[{index}].{key}"
                    raise FieldError(place, nearest(name, self.axes()[key]), repr(name))

    def axes(self) -> dict[str, tuple[str, ...]]:
        """Return what `exclude` may name."""
        return {
            "model": tuple(model.name or model.path for model in self.models),
            "adapter": self.adapters,
            "quantization": tuple(each.label for each in self.quantizations),
            "target": self.targets,
        }


_LISTS = {
    "model": "models",
    "adapter": "adapters",
    "quantization": "quantizations",
    "target": "targets",
}


@dataclass(frozen=True)
class Cell:
    """One job, as a matrix file asks for it.

    Attributes:
        file: The matrix file.
        places: The keys in it that the job comes from, by axis: ``model`` is ``models[0]``.
        names: What the file calls them.
        model: The checkpoint.
        adapter: The adapter's folder, or None.
        quantization: The schemes.
        target: The target's name, or its file.
        platform: The system, or None.
        context: Positions, or None.
        logs: Folders of tuning logs, or None.
    """

    file: Path
    places: Mapping[str, str]
    names: Mapping[str, str]
    model: ModelEntry
    adapter: Path | None
    quantization: QuantizationEntry
    target: str
    platform: str | None
    context: int | None
    logs: tuple[Path, ...] | None


@dataclass(frozen=True)
class Matrix:
    """All that a matrix file and those that it includes ask for.

    Attributes:
        path: The file.
        cells: The jobs.
        store: Where results go, or None.
    """

    path: Path
    cells: tuple[Cell, ...]
    store: str | None


def read_matrix(path: Path) -> Matrix:
    """Read a matrix file and all that it includes.

    Raises:
        UsageError: There is no such file.
        MatrixError: One is no TOML, has a wrong key or value, or includes itself in the end.
    """
    files: dict[Path, MatrixFile] = {}
    _read(path, files, ())
    cells: list[Cell] = []
    for file, content in files.items():
        cells += _cells(file, content)
        if len(cells) > MAX_JOBS:
            raise MatrixError(f"{path} is too large", expected=f"at most {MAX_JOBS} jobs")
    if not cells:
        raise MatrixError(f"{path}: all jobs are excluded", expected="one at least", fix=_FIX)
    top = files[path.resolve()]
    return Matrix(path, tuple(cells), _store(path, top.store) if top.store else None)


def _read(path: Path, files: dict[Path, MatrixFile], way: tuple[Path, ...]) -> None:
    """Read a file that was reached by way of others, and those that it includes."""
    file = path.resolve()
    if file in way:
        circle = (*way[way.index(file) :], file)
        raise MatrixError(
            f"{circle[0]} includes itself",
            found=" includes ".join(each.name for each in circle),
            fix="Take one of these out of `include`.",
        )
    if file in files:
        return
    if len(files) >= _MAX_FILES:
        raise MatrixError(f"{path} includes too many files", expected=f"at most {_MAX_FILES}")
    source = TomlFile(path, "the matrix", MatrixError, _FIX)
    files[file] = content = source.table(MatrixFile, _expand_shorthand(source.parse(), source))
    for each in content.include:
        _read(path.parent / each, files, (*way, file))


def _expand_shorthand(values: dict[str, Any], source: TomlFile) -> dict[str, Any]:
    """Return a file's values with tables in the place of strings that stand for them."""
    for key, field in (("models", "path"), ("quantizations", "scheme")):
        entries = values.get(key)
        if not isinstance(entries, list):
            continue
        for index, entry in enumerate(entries):
            if not isinstance(entry, str | dict):
                raise source.wrong(f"{key}[{index}]", "a string or a table", shown(entry))
        values[key] = [{field: each} if isinstance(each, str) else each for each in entries]
    for entry in values.get("quantizations") or ():
        if isinstance(entry, dict) and isinstance(entry.get("calibrate"), str):
            entry["calibrate"] = [entry["calibrate"]]
    return values


def _cells(file: Path, content: MatrixFile) -> Iterator[Cell]:
    folder, axes = file.parent, content.axes()
    logs = None if content.logs is None else tuple(folder / each for each in content.logs)
    indices = product(*(range(len(names)) for names in axes.values()))
    for model, adapter, quantization, target in indices:
        chosen = dict(zip(axes, (model, adapter, quantization, target), strict=True))
        names = {axis: axes[axis][index] for axis, index in chosen.items()}
        if any(out.named().items() <= names.items() for out in content.exclude):
            continue
        named = content.adapters[adapter]
        entry = content.models[model]
        tower = str(folder / entry.vision_tower) if entry.vision_tower else ""
        yield Cell(
            file=file,
            places={axis: f"{_LISTS[axis]}[{index}]" for axis, index in chosen.items()},
            names=names,
            model=ModelEntry(str(folder / entry.path), tower, entry.name),
            adapter=None if named == NO_ADAPTER else folder / named,
            quantization=content.quantizations[quantization],
            target=_target(folder, content.targets[target]),
            platform=content.platform or None,
            context=content.context or None,
            logs=logs,
        )


def _target(folder: Path, name: str) -> str:
    return str(folder / name) if name.endswith(".toml") else name


def _store(path: Path, store: str) -> str:
    """Return a store's URL; a folder's is relative to the file."""
    return store if "://" in store else str(path.resolve().parent / store)
