"""The rows of SmolLM2's table: which there are, and what their weights take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvlm.bench.peers.catalogue import PEERS
from mvlm.bench.quality.ggml import GgmlRow, ggml_rows
from mvlm.bench.quality.ggml_process import StoredTensor, stored_size, type_shares
from mvlm.bench.quality.importance import gguf_name, read_importance, write_importance
from mvlm.bench.quality.ours import OurRow, layer_entries, our_rows, weight_counts
from mvlm.bench.quality.row import row_name
from mvlm.models.quantization import DEFAULT_SCHEME, SCHEMES
from mvlm.runtime.artifact.weights import TensorEntry


def test_every_scheme_is_a_row_and_few_bits_are_calibrated_too() -> None:
    rows = our_rows()
    names = [row_name(row) for row in rows]
    assert len(set(names)) == len(names)
    assert {row.language for row in rows} == set(SCHEMES)
    calibrated = {(row.language, row.ends, row.ffn) for row in rows if row.calibrated}
    assert calibrated == {
        ("q4f16_1", None, None),
        ("q4a8", None, None),
        ("q4a8", "q4a8", None),
        ("q4a8", None, "q3a8"),
        ("q3a8", None, None),
    }
    # The text that layers are measured with is the calibration's.
    assert all(row.calibrated for row in rows if row.bits is not None)
    assert OurRow(DEFAULT_SCHEME) in rows


def test_a_rows_title_names_what_is_not_the_schemes_own() -> None:
    assert OurRow("q4a8").title == "q4a8"
    assert OurRow("q4a8", "q8a8", ffn="q3a8").title == "q4a8, ffn q3a8, ends q8a8"
    assert OurRow("q4a8", bits=3.5).title == "q4a8, bits 3.5"


def test_every_type_of_the_peers_is_a_row_with_and_without_importance() -> None:
    rows = ggml_rows()
    assert {row.tool for row in rows} < set(PEERS)
    assert len({row_name(row) for row in rows}) == len(rows)
    for row in rows:
        with_importance = GgmlRow(row.tool, row.file_type, calibrated=True)
        assert (with_importance in rows) == (row.file_type not in ("F32", "Q8_0"))


def test_calibration_changes_no_speed() -> None:
    assert OurRow("q4a8", "q8a8", True).speed_name == OurRow("q4a8", "q8a8").speed_name
    assert GgmlRow("llama.cpp", "Q4_0", True).speed_name == "llama.cpp Q4_0"


def test_weights_are_counted_once_and_norms_are_not_of_the_matrices() -> None:
    shapes = {
        "model.embed_tokens.weight": (10, 4),
        "model.layers.0.mlp.up_proj.weight": (8, 4),
        "model.layers.0.input_layernorm.weight": (4,),
        "model.norm.weight": (4,),
    }
    assert weight_counts(shapes) == (32, 80)


def test_stored_matrices_are_those_of_the_layers_with_their_scales() -> None:
    names = (
        "decoder.embed_tokens.q_weight",
        "decoder.layers.0.mlp.gate_up_proj.q_weight",
        "decoder.layers.0.mlp.gate_up_proj.q_scale",
        "decoder.layers.0.input_layernorm.weight",
        "decoder.norm.weight",
        "vision_tower.layers.0.q_weight",
    )
    entries = [TensorEntry(name, (4,), "int8", "a.bin", 64 * at) for at, name in enumerate(names)]
    assert [entry.name for entry in layer_entries(entries)] == [*names[1:3]]


def test_a_gguf_file_is_counted_with_its_fallbacks() -> None:
    tensors = [
        StoredTensor("token_embd.weight", "Q8_0", 320, 340, 2),
        StoredTensor("blk.0.attn_q.weight", "Q5_0", 96, 66, 2),
        StoredTensor("blk.0.ffn_down.weight", "Q4_K", 32, 18, 2),
        StoredTensor("blk.0.attn_norm.weight", "F32", 32, 128, 1),
    ]
    size = stored_size(tensors)
    assert size.layer_bits == pytest.approx(8 * 84 / 128)
    assert size.all_bits == pytest.approx(8 * 552 / 480)
    assert (size.nbytes, size.layers, size.ends) == (552, "Q5_0 75%, Q4_K 25%", "Q8_0")


def test_one_type_is_named_without_a_share() -> None:
    assert type_shares([StoredTensor("blk.0.a.weight", "IQ4_NL", 1, 1, 2)] * 2) == "IQ4_NL"


def test_importance_has_llamacpps_names(tmp_path: Path) -> None:
    assert gguf_name("model.layers.12.self_attn.o_proj") == "blk.12.attn_output.weight"
    assert gguf_name("model.layers.0.mlp.down_proj") == "blk.0.ffn_down.weight"
    assert gguf_name("lm_head") is None and gguf_name("model.layers.0.mlp") is None
    importance = {"blk.0.attn_q.weight": np.arange(3, dtype=np.float32)}
    write_importance(importance, tmp_path / "importance.npz")
    found = read_importance(tmp_path / "importance.npz")
    assert found.keys() == importance.keys()
    assert (found["blk.0.attn_q.weight"] == importance["blk.0.attn_q.weight"]).all()
