"""A device's kernels and schedule rules, and how they are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm import tirx

from mvlm.schedules.choice import Choose, Knob, Recorder, by_default

# The attribute by which a definition names its operation; `models.ops` sets it.
OP_ATTRIBUTE = "mvlm.op"

# A kernel for the definition, with what it leaves open chosen, or None where it does not serve it.
KernelBuilder = Callable[[tirx.PrimFunc, Choose], tirx.PrimFunc | None]
# The scheduled function, or None where the rule does not apply.
ScheduleRule = Callable[[tirx.PrimFunc], tirx.PrimFunc | None]
# A scheduled function, changed; also given what it was made of, and what chooses.
Finish = Callable[[tirx.PrimFunc, tirx.PrimFunc, Choose], tirx.PrimFunc]


@dataclass(frozen=True)
class KernelSet:
    """What a kind of device offers.

    Attributes:
        builders: For each operation, its kernels, the most special first.
        rules: Schedule rules for all other functions, tried in order.
        finish: What all scheduled functions go through.
    """

    builders: Mapping[str, tuple[KernelBuilder, ...]]
    rules: tuple[ScheduleRule, ...]
    finish: Finish = lambda function, *_: function

    def replace(
        self, definition: tirx.PrimFunc, choose: Choose = by_default
    ) -> tirx.PrimFunc | None:
        """Return the first kernel that serves a definition, marked as scheduled.

        Raises:
            ValueError: What chooses asks for what the kernel cannot do.
        """
        name = definition.attrs.get(OP_ATTRIBUTE, None)
        for builder in self.builders.get(str(name), ()):
            kernel = builder(definition, choose)
            if kernel is not None:
                kept = dict(definition.attrs.items())
                marks = kept | {"tirx.is_scheduled": True, "tirx.noalias": True}
                finished = self.finish(kernel, definition, choose)
                return finished.with_attrs(marks).without_attr("global_symbol")
        return None

    def space(self, definition: tirx.PrimFunc) -> tuple[Knob, ...] | None:
        """Return what the kernel of a definition leaves open; None where there is no kernel."""
        recorder = Recorder()
        return None if self.replace(definition, recorder) is None else tuple(recorder.knobs)

    def schedule(self, function: tirx.PrimFunc) -> tirx.PrimFunc:
        """Return a function scheduled by the first rule that applies; as it is if none does."""
        for rule in self.rules:
            scheduled = rule(function)
            if scheduled is not None:
                return self.finish(scheduled, function, by_default).with_attr(
                    "tirx.is_scheduled", True
                )
        return function
