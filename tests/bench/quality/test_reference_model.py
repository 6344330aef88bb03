"""The checkpoint of SmolLM2, as far as it is made without the package."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mvlm.bench.quality import reference_model
from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.bench.quality.reference_logits import TOLERANCE, check_against_torch
from mvlm.bench.quality.reference_model import checkpoint_config, stand_in_tokenizer
from mvlm.models.config.llama import llama_config
from mvlm.models.json_config import read_json_config
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.tokenizer import Tokenizer

SMOLLM2 = SimpleNamespace(
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    rms_norm_eps=1e-5,
    rope_theta=100_000.0,
    max_position_embeddings=8192,
)


def test_the_configuration_is_one_that_we_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(checkpoint_config(SMOLLM2)))
    config = llama_config(read_json_config(file))
    assert (config.num_key_value_heads, config.head_dim) == (3, 64)
    assert config.tie_word_embeddings and config.rope_theta == 100_000


def test_the_stand_in_tokenizer_has_as_many_pieces_as_asked_for() -> None:
    model = (BUNDLED / "tokenizer.model").read_bytes()
    original, stand_in = Tokenizer(model), Tokenizer(stand_in_tokenizer(model, 1000))
    assert stand_in.vocab_size == 1000 > original.vocab_size
    text = "How many circles are there?"
    assert stand_in.encode(text, bos=True) == original.encode(text, bos=True)


def test_a_reader_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"transformers": None}
    monkeypatch.setattr(reference_model, "find_spec", lambda name: absent.get(name, name))
    with pytest.raises(MvlmError, match=r"found no transformers\. `pip install"):
        reference_model.require_packages()


def test_logits_have_to_be_torchs() -> None:
    logits = np.array([[1.0, -30.0]], np.float32)
    assert check_against_torch(logits, logits + np.float32(TOLERANCE / 2)) <= TOLERANCE
    for wrong in (logits + np.float32(2 * TOLERANCE), logits * np.float32(np.nan)):
        with pytest.raises(MvlmError, match=r"not torch's"):
            check_against_torch(logits, wrong)
