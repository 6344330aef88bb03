"""The configuration of the text side: special token ids and how the tokenizer behaves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mvlm.models.json_config import JsonConfig, check_integer
from mvlm.runtime.errors import ConfigError
from mvlm.runtime.tokenizer import Tokenizer

TOKENIZER_MODEL = "tokenizer.model"
TOKENIZER_CONFIG = "tokenizer_config.json"
ADDED_TOKENS = "added_tokens.json"


@dataclass(frozen=True)
class GenerationConfig:
    """The special tokens of generation.

    Args:
        bos_token_id: Starts every prompt.
        eos_token_ids: Each of these ends an answer; at least one, the tokenizer's own first.
        pad_token_id: Fills batches up; None where the checkpoint names none.

    Raises:
        ConfigError: A value is not a token id.
    """

    bos_token_id: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None

    def __post_init__(self) -> None:
        check_integer("bos_token_id", self.bos_token_id, 0, 2**22)
        if not 1 <= len(self.eos_token_ids) <= 64:
            raise ConfigError(
                "`eos_token_id` must name 1 to 64 tokens", found=len(self.eos_token_ids)
            )
        for eos in self.eos_token_ids:
            check_integer("eos_token_id", eos, 0, 2**22)
        if self.pad_token_id is not None:
            check_integer("pad_token_id", self.pad_token_id, 0, 2**22)


@dataclass(frozen=True)
class TokenizerConfig:
    """How the SentencePiece model is used, beyond what `tokenizer.model` itself says.

    Args:
        legacy: Whether text after a special token gets a leading space piece of its own, as
            LLaMA tokenizers did before transformers 4.31. True where the checkpoint is silent.
    """

    legacy: bool


def generation_config(
    generation: JsonConfig, config: JsonConfig, tokenizer: Tokenizer | None
) -> GenerationConfig:
    """Read `generation_config.json`, key by key falling back to `config.json`.

    Where both are silent: 1 begins and 2 ends, as in every LLaMA. The official code also ends an
    answer at the end of sequence of the tokenizer, whatever the files say, and begins a prompt with
    what the tokenizer does.

    Args:
        generation: `generation_config.json`.
        config: `config.json`.
        tokenizer: The checkpoint's, if it has one.

    Raises:
        ConfigError: A value is not a token id.
    """
    first, then = generation, config
    eos = first.get("eos_token_id", then.get("eos_token_id", 2))
    pad = first.get("pad_token_id", then.get("pad_token_id"))
    declared = generation.build(
        GenerationConfig,
        bos_token_id=first.get("bos_token_id", then.get("bos_token_id", 1)),
        eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
        # Early conversions of LLaMA write -1 for "no padding token".
        pad_token_id=None if pad == -1 else pad,
    )
    if tokenizer is None:
        return declared
    ends = dict.fromkeys((tokenizer.eos_id, *declared.eos_token_ids))
    return replace(declared, bos_token_id=tokenizer.bos_id, eos_token_ids=tuple(ends))


def tokenizer_config(document: JsonConfig) -> TokenizerConfig:
    """Read `tokenizer_config.json`.

    Raises:
        ConfigError: `legacy` is not true or false.
    """
    return TokenizerConfig(legacy=document.flag("legacy", True))
