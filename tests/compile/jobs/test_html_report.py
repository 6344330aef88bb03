"""The report's page: whole, plain, and harmless whatever is written in it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mvlm.compile.jobs.html_report import render_html
from mvlm.compile.jobs.states import STATES
from tests.compile.jobs.fakes import key_of

_VOID = {"meta", "link", "img", "br"}
# What would have a page load something from elsewhere.
FOREIGN = ("http", "url(", "@import")


class Elements(HTMLParser):
    """Reads a page as a browser does: its elements, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    elements.close()
    assert not elements.open
    assert elements.names <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3"),
        *("table", "tr", "th", "td", "small", "a", "pre"),
    }
    assert elements.attributes <= {"lang", "charset", "name", "content", "class", "id", "href"}
    assert not [part for part in FOREIGN if part in page]
    return elements


def job(name: str, state: str = "done", **changes: Any) -> dict[str, Any]:
    return {
        "key": key_of(name),
        "name": name,
        "state": state,
        "attempts": 1,
        "worker": "here:1",
        "started": 0.0,
        "seconds": 1.25,
        "peak_bytes": 400_000_000,
        "result_bytes": 5_000_000,
        "model": "m",
        "adapter": "",
        "quantization": "q4a8",
        "target": name,
        "platform": "linux",
        "note": "",
    } | changes


def report(jobs: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "run": "20261126-041232-00ffee",
        "matrix": "matrix.toml",
        "store": "store",
        "engine": "local",
        "state": "done",
        "started": 0.0,
        "seconds": 9.5,
        "counts": {state: sum(job["state"] == state for job in jobs) for state in STATES},
        "jobs": jobs,
        "weights": [job("w")],
    } | changes


def test_html_report_of_a_matrix() -> None:
    jobs = [job(state, state) for state in STATES] + [job("other", model="n")]
    page = render_html(report(jobs), {key_of("failed"): "the end\nof the log"})
    text = read(page).text
    for part in (*STATES, "q4a8", "1.2 s", "5.0 MB", "400.0 MB", "of the log", "Shared weights"):
        assert part in text
    # Where the matrix asks for no job, no job is shown.
    assert text.count("\u2013") == 2 * len(jobs) - len(jobs)
    assert f'href="#job-{key_of("failed")[:16]}"' in page


def test_html_report_shows_all_jobs_of_a_cell() -> None:
    """As of models that were given the same name."""
    jobs = [job("a"), job("a", "failed", key=key_of("b"))]
    page = render_html(report(jobs), {})
    matrix = page.partition("<h2>The matrix</h2>")[2].partition("</table>")[0]
    assert [f'href="#job-{each["key"][:16]}"' in matrix for each in jobs] == [True, True]


def test_html_report_without_jobs() -> None:
    idle = job("a", "queued", seconds=None, peak_bytes=None, result_bytes=None)
    assert "None" not in read(render_html(report([idle]), {})).text


UNTRUSTED = "<script>alert(1)</script>\"'><img src=x onerror=y>&amp;\0"


def test_html_report_escapes_untrusted_text() -> None:
    keys = ("name", "note", "worker", "model", "adapter", "quantization", "target", "platform")
    jobs = [job("a", "failed") | dict.fromkeys(keys, UNTRUSTED)]
    texts = dict.fromkeys(("run", "matrix", "store", "engine", "state"), UNTRUSTED)
    page = render_html(report(jobs, **texts), {key_of("a"): UNTRUSTED})
    assert "<script" not in page and "<img" not in page
    read(page)


@given(st.text(max_size=60).filter(lambda text: not any(part in text for part in FOREIGN)))
def test_html_report_escapes_any_log(text: str) -> None:
    read(render_html(report([job("a", "failed", note=text)]), {key_of("a"): text}))
