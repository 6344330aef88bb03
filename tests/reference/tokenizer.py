"""A small SentencePiece model of the kind that LLaMA uses: BPE with byte fallback."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import sentencepiece

# Three special pieces, 256 bytes, and some merges.
VOCAB_SIZE = 384

_CORPUS = """
A chat between a curious user and an artificial intelligence assistant.
The assistant gives helpful, detailed, and polite answers to the user's questions.
USER: What is in the picture? ASSISTANT: There is a red circle left of a blue square.
USER: How many triangles are there? ASSISTANT: There are three green triangles.
USER: Is the yellow star above the small circle? ASSISTANT: No, the star is below the circle.
USER: Describe the picture. ASSISTANT: A large purple square, and a small orange circle.
What colour is the shape at the top? Which of the shapes is the largest one in the picture?
The shape on the right is white, the one on the left is black, and both are the same size.
""".strip().splitlines()


@functools.cache
def train_tokenizer() -> bytes:
    """The serialized model; trained once per process, always the same."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def write_tokenizer(folder: Path, *, legacy: bool | None) -> None:
    """Write the tokenizer files that a MobileVLM checkpoint has."""
    (folder / "tokenizer.model").write_bytes(train_tokenizer())
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config: dict[str, object] = {
        **special,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "pad_token": None,
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
    }
    if legacy is not None:
        config["legacy"] = legacy
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
