"""The errors that mvlm raises on purpose.

Each says in one line what went wrong, what was expected, what was found and how to fix it, and
carries the process exit code that it maps to. The command line prints that line and no
traceback; a program catches :class:`MvlmError` or one of its subclasses.

This module imports nothing, and every other package may import it.
"""


class MvlmError(Exception):
    """Something that a user can act on.

    Args:
        problem: What went wrong, with the name of the file, key or tensor concerned.
        expected: What would have been right.
        found: What was there instead.
        fix: What to do about it, preferably a command.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        found: object = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.found = found
        self.fix = fix
        super().__init__(self._line())

    def _line(self) -> str:
        halves = []
        if self.expected is not None:
            halves.append(f"expected {self.expected}")
        if self.found is not None:
            halves.append(f"found {self.found}")
        line = self.problem + (": " + ", ".join(halves) if halves else "")
        return f"{line}. {self.fix}" if self.fix else line


class UsageError(MvlmError):
    """The request itself is wrong: a bad option, an unknown name, a file that is not there."""

    exit_code = 2


class ConfigError(MvlmError):
    """A checkpoint's configuration lacks a key, or holds a value that no model can have."""


class CheckpointError(MvlmError):
    """A checkpoint's weights are missing, cut short, misshapen or unreadable."""


class TargetError(MvlmError):
    """A device's description, or the toolchain it needs, is not usable here."""


class ArtifactError(MvlmError):
    """An artifact is damaged, not whole, or made for another machine or version."""


class ImageError(MvlmError):
    """An image cannot be read, or is too large to be read safely."""


class TokenizerError(MvlmError):
    """A tokenizer file is unreadable, or does not belong to the model."""


class PromptError(MvlmError):
    """A prompt cannot be answered: empty, or its images do not match its text."""


class ContextError(PromptError):
    """A prompt does not fit into the model's context."""


class LowMemoryError(MvlmError):
    """There is too little free memory; there may be enough once another model is unloaded."""


class ModelMemoryError(ArtifactError, LowMemoryError):
    """There is too little free memory for a model's weights."""


class CacheMemoryError(ContextError, LowMemoryError):
    """There is too little free memory for a KV cache."""
