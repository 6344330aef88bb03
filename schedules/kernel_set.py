"""The kernels and schedule rules of a kind of device, and how one is selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm import tirx

from mvlm.schedules.config_space import Config, Knob, SpaceRecorder, default_config

# The attribute by which a definition names its operation; `models.ops` sets it.
OP_ATTRIBUTE = "mvlm.op"

# The kernel for a definition, in a configuration; None if the builder does not support it.
KernelBuilder = Callable[[tirx.PrimFunc, Config], tirx.PrimFunc | None]
# The scheduled function; None if the rule does not apply.
ScheduleRule = Callable[[tirx.PrimFunc], tirx.PrimFunc | None]
# Rewrites a scheduled function; also gets its definition, and the configuration.
Postproc = Callable[[tirx.PrimFunc, tirx.PrimFunc, Config], tirx.PrimFunc]


@dataclass(frozen=True)
class KernelSet:
    """The kernels and schedule rules of a kind of device.

    Attributes:
        builders: For each operation, the builders of its kernels, the most specialized first.
        rules: Schedule rules for all other functions, tried in order.
        postproc: Applied to every scheduled function.
    """

    builders: Mapping[str, tuple[KernelBuilder, ...]]
    rules: tuple[ScheduleRule, ...]
    postproc: Postproc = lambda function, *_: function

    def lower(
        self, definition: tirx.PrimFunc, knob: Config = default_config
    ) -> tirx.PrimFunc | None:
        """Return the first kernel that supports a definition, marked as scheduled.

        Raises:
            ValueError: The kernel does not support the configuration.
        """
        name = definition.attrs.get(OP_ATTRIBUTE, None)
        for builder in self.builders.get(str(name), ()):
            kernel = builder(definition, knob)
            if kernel is not None:
                kept = dict(definition.attrs.items())
                marks = kept | {"tirx.is_scheduled": True, "tirx.noalias": True}
                processed = self.postproc(kernel, definition, knob)
                return processed.with_attrs(marks).without_attr("global_symbol")
        return None

    def space(self, definition: tirx.PrimFunc) -> tuple[Knob, ...] | None:
        """Return the knobs of a definition's kernel; None where there is no kernel."""
        recorder = SpaceRecorder()
        return None if self.lower(definition, recorder) is None else tuple(recorder.knobs)

    def schedule(self, function: tirx.PrimFunc) -> tirx.PrimFunc:
        """Return a function scheduled by the first rule that applies; unchanged if none does."""
        for rule in self.rules:
            scheduled = rule(function)
            if scheduled is not None:
                return self.postproc(scheduled, function, default_config).with_attr(
                    "tirx.is_scheduled", True
                )
        return function
