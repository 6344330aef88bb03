"""What runs on the device: artifact, images, tokens, engine and chat.

Nothing here imports tvm, torch or the packages that compile. The names below are the short way to
what docs/python.md describes; each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvlm.runtime.chat import Chat
    from mvlm.runtime.completion import Completion
    from mvlm.runtime.engine import Engine, EngineSettings
    from mvlm.runtime.engine.asynchronous import AsyncEngine
    from mvlm.runtime.errors import MvlmError
    from mvlm.runtime.model import Model
    from mvlm.runtime.sampling import SamplingParams
    from mvlm.runtime.single_turn import agenerate, generate
    from mvlm.runtime.structured_output import Constraint

_HOMES = {
    "AsyncEngine": "engine.asynchronous",
    "Chat": "chat",
    "Completion": "completion",
    "Constraint": "structured_output",
    "Engine": "engine",
    "EngineSettings": "engine",
    "Model": "model",
    "MvlmError": "errors",
    "SamplingParams": "sampling",
    "agenerate": "single_turn",
    "generate": "single_turn",
}

__all__ = [
    "AsyncEngine",
    "Chat",
    "Completion",
    "Constraint",
    "Engine",
    "EngineSettings",
    "Model",
    "MvlmError",
    "SamplingParams",
    "agenerate",
    "generate",
]


def __getattr__(name: str) -> Any:
    """Import a public name where it is used (PEP 562): a command needs few of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
