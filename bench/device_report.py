"""A device's report: what it is, how it was when it was measured, and its speeds.

One JSON file, which `mvlm device-check` writes on the device and `mvlm bench --from-report` reads
at home. It comes from outside, so that reading it is strict: bounded, every value of its type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvlm.runtime.artifact.json_object import JsonObject, read_json_object
from mvlm.runtime.errors import ArtifactError, MvlmError
from mvlm.runtime.terminal_text import printable

SCHEMA_VERSION = 2
# The table needs no key that differs: version 1 said `opened_s` and `picture`.
_READABLE_VERSIONS = (1, SCHEMA_VERSION)
MARK = "reports"  # of the table's place in a page
SPEEDS = {
    "vision_ms": "image, ms",
    "prefill_tok_s": "prefill, tok/s",
    "decode_tok_s": "decode, tok/s",
    "first_token_ms": "first token, ms",
    "peak_rss_bytes": "peak memory, MB",
}
_MOST_WORDS = 120  # characters of a name in a table


@dataclass(frozen=True)
class DeviceReport:
    """What a table needs of a report.

    Attributes:
        device: The CPU's name.
        targets: The targets that it was recognised as.
        model: The artifact's model.
        quantization: Of its decoder.
        digest: The artifact's name.
        threads: Threads that the speeds were measured on.
        governor: The first core's, before the measurement.
        hottest: The hottest sensor before and after, in degrees Celsius; None where none is read.
        answer: What the model said of the image.
        speeds: Medians by the names of :data:`SPEEDS`.
        bandwidth_share: Of the read bandwidth that decoding took.
        bandwidth: Bytes read in a second.
    """

    device: str
    targets: tuple[str, ...]
    model: str
    quantization: str
    digest: str
    threads: int
    governor: str
    hottest: tuple[float | None, float | None]
    answer: str
    speeds: Mapping[str, float]
    bandwidth_share: float
    bandwidth: float


def read_device_report(path: Path) -> DeviceReport:
    """Read a report.

    Raises:
        MvlmError: It is none, or a value is wrong; says which.
    """
    try:
        return _parse(read_json_object(path))
    except ArtifactError as error:
        raise MvlmError(
            error.problem,
            expected=error.expected,
            found=error.found,
            fix="`mvlm device-check ARTIFACT -o FILE` writes a report, on the device.",
        ) from None


def _parse(document: JsonObject) -> DeviceReport:
    if (schema := document.get("schema", int)) not in _READABLE_VERSIONS:
        raise ArtifactError(
            f"{document.where} was written by another version of mvlm",
            expected=f"schema {' or '.join(map(str, _READABLE_VERSIONS))}",
            found=f"schema {schema}",
        )
    device, speeds = document.child("device"), document.child("speeds")
    artifact = speeds.child("artifact")
    before, after = (document.child(key) for key in ("before", "after"))
    return DeviceReport(
        device=_word(device, "cpu"),
        targets=tuple(_word(each, "name") for each in device.children("targets")),
        model=_word(artifact, "model"),
        quantization=_word(artifact.child("quantization"), "language"),
        digest=_word(artifact, "digest"),
        threads=speeds.get("threads", int),
        governor=next((_word(core, "governor") for core in before.children("cores")), "unknown"),
        hottest=(_hottest(before), _hottest(after)),
        answer=_word(document.child("chat"), "text"),
        speeds={name: _number(speeds.child(name), "median") for name in SPEEDS},
        bandwidth_share=_number(speeds, "bandwidth_share"),
        bandwidth=_number(speeds, "read_bandwidth_bytes_s"),
    )


def _hottest(state: JsonObject) -> float | None:
    degrees = [_number(each, "celsius") for each in state.children("temperatures")]
    return max(degrees, default=None)


def _number(document: JsonObject, key: str) -> float:
    value = document.get(key, float)
    if not math.isfinite(value) or value < 0:
        raise ArtifactError(
            f"{document.where}: key {key!r} is wrong", expected="0 or more", found=value
        )
    return value


def _word(document: JsonObject, key: str) -> str:
    """Return a string as a table may hold it: one line, short, without marks of Markdown."""
    text = " ".join(document.get(key, str).split())[:_MOST_WORDS]
    return "".join(" " if letter in "|<>`" else letter for letter in printable(text))


def table(reports: Sequence[DeviceReport]) -> str:
    """Write reports as a table in Markdown, a column each."""
    rows: list[tuple[str, list[str]]] = [
        ("", [report.device for report in reports]),
        ("target", [" or ".join(report.targets) or "unknown" for report in reports]),
        ("model", [f"{report.model}, {report.quantization}" for report in reports]),
        ("artifact", [f"`{report.digest[:12]}`" for report in reports]),
        ("threads", [str(report.threads) for report in reports]),
        ("governor", [report.governor for report in reports]),
        ("hottest sensor, before and after", [_heat(report.hottest) for report in reports]),
        *((title, [_speed(each, name) for each in reports]) for name, title in SPEEDS.items()),
        ("memory read, GB/s", [f"{report.bandwidth / 1e9:.1f}" for report in reports]),
        ("share used by decode", [f"{100 * report.bandwidth_share:.0f} %" for report in reports]),
        ("answer", [report.answer for report in reports]),
    ]
    lines = [f"| {head} | {' | '.join(cells)} |" for head, cells in rows]
    return "\n".join([lines[0], "|---|" + "--:|" * len(reports), *lines[1:]]) + "\n"


def _heat(hottest: tuple[float | None, float | None]) -> str:
    return ", ".join("not read" if each is None else f"{each:.0f} °C" for each in hottest)


def _speed(report: DeviceReport, name: str) -> str:
    value: Any = report.speeds[name]
    if name == "peak_rss_bytes":
        return f"{value / 1e6:,.0f}"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
