"""One question, one answer: the shortest way from Python to a model.

Conversations are :class:`mvlm.runtime.chat.Chat`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from mvlm.runtime.async_generation import AsyncGeneration, in_thread
from mvlm.runtime.engine import Engine, Request
from mvlm.runtime.engine.asynchronous import AsyncEngine
from mvlm.runtime.generation import Generation
from mvlm.runtime.model import Model
from mvlm.runtime.processor import ImageSource, Processor
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.structured_output import Constraint
from mvlm.runtime.template import Turn

# Reading a tokenizer takes longer than a short answer of a small model.
_processors: WeakKeyDictionary[Model, Processor] = WeakKeyDictionary()


def generate(
    engine: Engine,
    question: str,
    images: Sequence[ImageSource] = (),
    params: SamplingParams | None = None,
    *,
    constraint: Constraint | None = None,
) -> Generation:
    """Answer a question; nothing is computed before the generation is iterated.

    Args:
        engine: Computes the answer.
        question: The user's text.
        images: Shown with it: files, their bytes, or preprocessed pixels.
        params: How to sample; greedily if None.
        constraint: The form of the answer; any if None.

    Raises:
        PromptError: The question is blank, or its images do not match its text or the model.
        ImageError: An image cannot be read.
        ConstraintError: The form is not understood, or too complex.
    """
    processor, params = _processor(engine.model), params or SamplingParams()
    request = _request(processor, question, images, params, constraint)
    return Generation(engine, request, processor.stream(params), lambda _: None)


def agenerate(
    engine: AsyncEngine,
    question: str,
    images: Sequence[ImageSource] = (),
    params: SamplingParams | None = None,
    *,
    constraint: Constraint | None = None,
) -> AsyncGeneration:
    """Answer a question from an event loop; many are answered at once.

    The arguments are those of :func:`generate`, and its errors those of the first part of the
    answer. Images are decoded and forms compiled in threads.
    """
    processor, params = _processor(engine.model), params or SamplingParams()
    return AsyncGeneration(
        engine,
        lambda: in_thread(lambda: _request(processor, question, images, params, constraint)),
        processor.stream(params),
    )


def _processor(model: Model) -> Processor:
    if model not in _processors:
        _processors[model] = Processor(model)
    return _processors[model]


def _request(
    processor: Processor,
    question: str,
    images: Sequence[ImageSource],
    params: SamplingParams,
    constraint: Constraint | None,
) -> Request:
    ids = processor.prompt([Turn(question, len(images))])
    return processor.request(ids, list(map(processor.pixels, images)), params, constraint)
