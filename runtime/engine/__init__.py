"""The engine: many sequences of one model at once.

=====================  =============================================================================
:mod:`engine`          steps, and what is chosen from their logits
:mod:`scheduler`       which sequences are computed, and which of their rows a step takes
:mod:`request`         what is asked for, and the answer as it comes
:mod:`settings`        the engine's limits
:mod:`load`            how much there is to do
:mod:`running`         sequences that wait and that are computed
:mod:`batch`           one step of the model: rows of several sequences by one call
:mod:`speculation`     drafted tokens, and how many of them pay
:mod:`positions`       what a sequence's positions are computed from
:mod:`page_pool`       which pages of the KV cache are free, and how many hold each
:mod:`sequence`        a sequence's pages: appending, forking, truncating
:mod:`prefix_cache`    pages by their content, which later prompts share
:mod:`image_encoder`   images, each encoded once
:mod:`trace`           the numbers of every stage
=====================  =============================================================================
"""

from mvlm.runtime.engine.engine import Engine
from mvlm.runtime.engine.request import Answer, AnswerStats, FinishReason, Request, TokenLogprobs
from mvlm.runtime.engine.settings import EngineSettings
from mvlm.runtime.engine.trace import Trace

__all__ = [
    "Answer",
    "AnswerStats",
    "Engine",
    "EngineSettings",
    "FinishReason",
    "Request",
    "TokenLogprobs",
    "Trace",
]
