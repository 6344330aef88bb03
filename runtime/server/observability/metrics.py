"""``/metrics``, in the text format of Prometheus.

Each application has a registry of its own. What is held by an engine is read when the metrics are
asked for, as plain numbers and without waiting for the engine, which may be amid a long step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mvlm.runtime.engine.load import EngineLoad
from mvlm.runtime.server.observability.model_metrics import MetricFamilies, ModelMetrics
from mvlm.runtime.server.observability.request_context import RequestContext

Loads = Callable[[], Mapping[str, EngineLoad | None]]


class Metrics:
    """What is measured of a server.

    Args:
        loads: Returns the engines' load by their models' names; None for one that is not loaded.
        open_answers: Returns how many answers are begun and not finished.
    """

    def __init__(self, loads: Loads, open_answers: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mvlm_http_requests",
            "Requests that were answered.",
            ["path", "status"],
            registry=self._registry,
        )
        self._families = MetricFamilies(self._registry)
        self._models: dict[str, ModelMetrics] = {}
        self._registry.register(_EngineCollector(loads, open_answers))
        ProcessCollector(registry=self._registry)

    def of(self, model: str) -> ModelMetrics:
        """Return the metrics of a model that is served."""
        if model not in self._models:
            self._models[model] = self._families.of(model)
        return self._models[model]

    def count(self, context: RequestContext) -> None:
        """Count a request that has ended."""
        self._requests.labels(context.route, str(context.status or "none")).inc()
        if context.metrics is not None:
            context.metrics.count(context.groups)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their media type.

        Args:
            accept: The header of this name, by which OpenMetrics can be asked for.
        """
        encoder, media_type = choose_encoder(accept)
        return encoder(self._registry), media_type


class _EngineCollector(Collector):
    """Reads what the engines hold."""

    def __init__(self, loads: Loads, open_answers: Callable[[], int]) -> None:
        self._loads, self._open_answers = loads, open_answers

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        loads = dict(self._loads())
        loaded = {name: load for name, load in loads.items() if load is not None}
        yield GaugeMetricFamily(
            "mvlm_open_answers", "Answers begun and not finished.", value=self._open_answers()
        )
        yield _gauge(
            "mvlm_model_loaded",
            "Whether a model is in memory.",
            {(name,): int(load is not None) for name, load in loads.items()},
        )
        for name, text, read in _GAUGES:
            yield _gauge(name, text, {(model,): read(load) for model, load in loaded.items()})
        yield _gauge("mvlm_kv_pages", "Pages of the KV cache.", _pages(loaded), "state")


_GAUGES: tuple[tuple[str, str, Callable[[EngineLoad], int]], ...] = (
    ("mvlm_requests_waiting", "Sequences without pages.", lambda load: load.waiting),
    ("mvlm_requests_running", "Sequences that are computed.", lambda load: load.running),
    ("mvlm_encoded_images", "Images whose embeddings are kept.", lambda load: load.images),
)


def _pages(loaded: Mapping[str, EngineLoad]) -> dict[tuple[str, ...], int]:
    """Return the pages that sequences alone hold, those of the prefix cache, and the free ones."""
    pages: dict[tuple[str, ...], int] = {}
    for model, load in loaded.items():
        used = load.pages - load.free_pages - load.cached_pages
        # The numbers may be read amid a change.
        pages[model, "used"] = max(0, used)
        pages[model, "cached"] = load.cached_pages
        pages[model, "free"] = load.free_pages
    return pages


def _gauge(
    name: str, text: str, values: Mapping[tuple[str, ...], int], *labels: str
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["model", *labels])
    for key, value in values.items():
        family.add_metric(key, value)
    return family
