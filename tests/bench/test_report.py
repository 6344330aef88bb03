from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mvlm.bench.report import Spread, weight_bytes_per_token
from mvlm.models.config.read import read_config
from mvlm.models.llama import Llama
from mvlm.models.quantization import plan_quantization
from mvlm.runtime.artifact.weights import TensorEntry, WeightsIndex, read_weights_index
from mvlm.schedules.cpu.panels import PANELS
from tests.artifacts import ArtifactCache

BUNDLED = Path(__file__).parents[2] / "models" / "bundled" / "mobilevlm-shapes"


def test_report_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(median=2.0, min=1.0, max=3.0)
    assert Spread.of([5.0]) == Spread(5.0, 5.0, 5.0)


def _index(*tensors: tuple[str, tuple[int, ...], str]) -> WeightsIndex:
    return WeightsIndex(
        "panels16",
        tuple(
            TensorEntry(name, shape, dtype, "some.bin", place << 20)
            for place, (name, shape, dtype) in enumerate(tensors)
        ),
    )


def test_weight_bytes_per_token_count_one_embedding_row() -> None:
    table = ("decoder.embed_tokens.q_weight", (100, 8), "uint32")
    layer = ("decoder.layers.0.down.q_weight", (4, 6), "uint32")
    head = ("decoder.lm_head.weight", (8, 100), "float16")
    tower = ("tower.layers.0.norm1.weight", (50,), "float32")
    projector = ("image_projector.weight", (50,), "float32")
    index = _index(table, layer, head, tower, projector)
    assert weight_bytes_per_token(index) == 8 * 4 + 4 * 6 * 4 + 8 * 100 * 2


def test_weight_bytes_per_token_count_a_tied_table_once() -> None:
    """As head; beside a head of another scheme, a row of it."""
    config = replace(read_config(BUNDLED).language, tie_word_embeddings=True)

    def index(embedding: str) -> WeightsIndex:
        decoder = Llama(config, plan_quantization("q8a8", embedding=embedding), PANELS)
        return _index(
            *(
                (f"decoder.{name}", tuple(map(int, each.shape)), str(each.dtype))
                for name, each in decoder.named_parameters()
            )
        )

    once, twice = index("q8a8"), index("q0f16")
    assert weight_bytes_per_token(once) == sum(entry.nbytes for entry in once.tensors)
    row = 2 * config.hidden_size
    assert weight_bytes_per_token(twice) == weight_bytes_per_token(once) + row


def test_weight_bytes_per_token_of_an_artifact(artifact_cache: ArtifactCache) -> None:
    """Counted from the model's shape, at 4 bytes a weight."""
    hidden, inner = 128, 256
    index = read_weights_index(artifact_cache.artifact("text"))
    shapes = {entry.name: entry.shape for entry in index.tensors}
    vocabulary = 16 * shapes["decoder.lm_head.weight"][0]  # 384, which fills the panels
    layers = 1 + max(int(n.split(".")[2]) for n in shapes if n.startswith("decoder.layers."))
    layer = 4 * hidden * hidden + 3 * hidden * inner + 2 * hidden
    weights = layers * layer + hidden + vocabulary * hidden + hidden
    assert weight_bytes_per_token(index) == 4 * weights


@pytest.mark.parametrize("values", [[]])
def test_report_spread_of_no_values(values: list[float]) -> None:
    with pytest.raises(ValueError):
        Spread.of(values)
