"""A model that is served: its engine, and what is between words and it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvlm.runtime.engine import EngineSettings
from mvlm.runtime.engine.asynchronous import AsyncEngine
from mvlm.runtime.model import FloatArray, Model
from mvlm.runtime.processor import Processor
from mvlm.runtime.structured_output import Constraint, TokenMatcher
from mvlm.runtime.template import ChatTemplate
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
        processor: Between words and the model.
        created: When it was loaded, in seconds since 1970.
    """

    name: str
    model: Model
    engine: AsyncEngine
    processor: Processor
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
        return cls(name, model, AsyncEngine(model, settings), Processor(model))

    @property
    def tokenizer(self) -> Tokenizer:
        """The artifact's tokenizer."""
        return self.processor.tokenizer

    @property
    def template(self) -> ChatTemplate:
        """The artifact's chat template."""
        return self.processor.template

    async def matcher(
        self, constraint: Constraint | None, *, after_text: bool = False
    ) -> TokenMatcher | None:
        """Compile the form of an answer, in a thread: it is untrusted, and may take a while.

        Raises:
            ConstraintError: It is not understood, or too complex.
        """
        if constraint is None:
            return None
        compiler = self.processor.constraints
        return await asyncio.to_thread(compiler.compile, constraint, after_text=after_text)

    async def pixels(self, files: Sequence[bytes]) -> list[FloatArray]:
        """Decode images, in threads: they are untrusted, and large ones take a while.

        Raises:
            ImageError: One is none that is read.
            PromptError: The model reads text only.
        """
        return [await asyncio.to_thread(self.processor.pixels, file) for file in files]
