"""Between words and a model: its tokenizer, chat template, image preprocessing and forms.

What Hugging Face calls a processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mvlm.runtime.artifact.layout import TOKENIZER
from mvlm.runtime.engine import Request, Trace
from mvlm.runtime.errors import ArtifactError, PromptError, UsageError
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.model import FloatArray, Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.structured_output import Constraint, ConstraintCompiler
from mvlm.runtime.template import TEMPLATES, ChatTemplate, Turn
from mvlm.runtime.text_stream import TextStream
from mvlm.runtime.tokenizer import Tokenizer

ImageSource: TypeAlias = str | Path | bytes | FloatArray
"""An image's file, the bytes of one, or preprocessed pixels ``(1, 3, S, S)`` float32."""


class Processor:
    """What turns questions into requests to a model, and its tokens into answers.

    Args:
        model: The loaded artifact.
        template: Name of the chat template; the artifact's own if None.

    Raises:
        UsageError: There is no such template.
        ArtifactError: The artifact names a template that does not exist.
        TokenizerError: The artifact's tokenizer is damaged.

    Attributes:
        settings: The model's.
        template: How a conversation becomes a prompt.
        tokenizer: Between text and ids.
        constraints: Compiles the forms of answers.
    """

    def __init__(self, model: Model, template: str | None = None) -> None:
        self.settings = model.settings
        self.template = _find_template(template, model.settings.template)
        self.tokenizer = Tokenizer(model.folder / TOKENIZER, legacy=self.settings.legacy_tokenizer)
        self.constraints = ConstraintCompiler(
            self.tokenizer, self.settings.vocabulary, self.settings.eos
        )

    def pixels(self, image: ImageSource) -> FloatArray:
        """Read and preprocess an image: ``(1, 3, S, S)`` float32.

        Raises:
            ImageError: It cannot be read.
            PromptError: The model reads text only.
        """
        spec = self.settings.image
        if spec is None:
            raise PromptError("the model reads text only", fix="Leave the image out.")
        return image if isinstance(image, np.ndarray) else preprocess(load_image(image), spec)

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Return the ids of a conversation, -200 in the place of each image.

        Raises:
            PromptError: The conversation is not one of the template.
        """
        return self.tokenizer.encode_prompt(self.template.render(turns))

    def request(
        self,
        ids: Sequence[int],
        pixels: Sequence[FloatArray],
        params: SamplingParams,
        constraint: Constraint | None = None,
        trace: Trace | None = None,
    ) -> Request:
        """Return what to ask an engine for.

        Raises:
            ConstraintError: The form is not understood, or too complex.
        """
        matcher = None if constraint is None else self.constraints.compile(constraint)
        eos = frozenset(self.settings.eos)
        return Request(ids, pixels, params, eos, matcher=matcher, trace=trace)

    def stream(self, params: SamplingParams) -> TextStream:
        """Return what turns the tokens of an answer into text."""
        return TextStream(self.tokenizer, (*self.template.stop, *params.stop))


def _find_template(chosen: str | None, default: str) -> ChatTemplate:
    name = default if chosen is None else chosen
    if name not in TEMPLATES:
        error = ArtifactError if chosen is None else UsageError
        raise error("unknown chat template", expected=" or ".join(TEMPLATES), found=repr(name))
    return TEMPLATES[name]
