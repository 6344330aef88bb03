"""A model that is served: its engine, tokenizer and chat template."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvlm.runtime.artifact.layout import TOKENIZER
from mvlm.runtime.engine import EngineSettings
from mvlm.runtime.engine.asynchronous import AsyncEngine
from mvlm.runtime.errors import PromptError
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.model import FloatArray, Model
from mvlm.runtime.structured_output import Constraint, ConstraintCompiler, TokenMatcher
from mvlm.runtime.template import TEMPLATES, ChatTemplate
from mvlm.runtime.tokenizer import Tokenizer

# Of the KV cache, unless its capacity is given.
_CONTEXTS = 4


@dataclass(frozen=True)
class ServedModel:
    """A loaded model under a name.

    Attributes:
        name: What requests call it.
        model: The artifact.
        engine: Computes the answers, once it is entered.
        tokenizer: The artifact's.
        template: The artifact's.
        constraints: Compiles the forms of answers.
        created: When it was loaded, in seconds since 1970.
    """

    name: str
    model: Model
    engine: AsyncEngine
    tokenizer: Tokenizer
    template: ChatTemplate
    constraints: ConstraintCompiler
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def load(
        cls, name: str, artifact: Path, threads: int | None, settings: EngineSettings
    ) -> ServedModel:
        """Verify and load an artifact.

        Raises:
            ArtifactError: It is damaged, or made for another machine.
            UsageError: A setting is out of its range.
            ContextError: There is too little memory for the KV cache.
        """
        model = Model(artifact, threads)
        if settings.capacity is None:
            context = settings.context or model.settings.context
            settings = replace(settings, capacity=_CONTEXTS * context)
        chat = model.settings
        tokenizer = Tokenizer(model.folder / TOKENIZER, legacy=chat.legacy_tokenizer)
        return cls(
            name,
            model,
            AsyncEngine(model, settings),
            tokenizer,
            TEMPLATES[chat.template],
            ConstraintCompiler(tokenizer, chat.vocabulary, chat.eos),
        )

    async def matcher(
        self, constraint: Constraint | None, *, after_text: bool = False
    ) -> TokenMatcher | None:
        """Compile the form of an answer, in a thread: it is untrusted, and may take a while.

        Raises:
            ConstraintError: It is not understood, or too complex.
        """
        if constraint is None:
            return None
        return await asyncio.to_thread(self.constraints.compile, constraint, after_text=after_text)

    async def pixels(self, files: Sequence[bytes]) -> list[FloatArray]:
        """Decode images, in threads: they are untrusted, and large ones take a while.

        Raises:
            ImageError: One is none that is read.
            PromptError: The model reads text only.
        """
        spec = self.model.settings.image
        if files and spec is None:
            raise PromptError("the model reads text only", fix="Leave the image out.")

        def decode(file: bytes) -> FloatArray:
            assert spec is not None
            return preprocess(load_image(file), spec)

        return [await asyncio.to_thread(decode, file) for file in files]
