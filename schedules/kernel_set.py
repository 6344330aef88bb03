"""A kernel set: kernels, schedule rules and the weights' layout, and how a kernel is selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm import tirx
from tvm.target import Target

from mvlm.models.ops.definition import operation_attributes
from mvlm.models.ops.signatures import LinearLayer, Signature, read_signature
from mvlm.models.weight_layout import WeightLayout
from mvlm.schedules.config_space import Config, Knob, SpaceRecorder, default_config
from mvlm.schedules.device_needs import ANY_CPU, DeviceNeeds
from mvlm.schedules.tvmscript_parser import speed_up_parsing

speed_up_parsing()

# The kernel of a signature, which is of the class that the builder is for, in a configuration; None
# if the builder does not support it.
KernelBuilder = Callable[[Any, Config], tirx.PrimFunc | None]
# The scheduled function; None if the rule does not apply.
ScheduleRule = Callable[[tirx.PrimFunc], tirx.PrimFunc | None]
# Rewrites a scheduled function; also gets whether it has one row or few, and the configuration.
Postproc = Callable[[tirx.PrimFunc, bool, Config], tirx.PrimFunc]


@dataclass(frozen=True, eq=False)
class KernelSet:
    """The kernels and schedule rules of a kind of device.

    Layout and needs are also found without tvm, by `schedules.registry`.

    Attributes:
        builders: For each class of signatures, the builders of its kernels, the most specialized
            first.
        rules: Schedule rules for all other functions, tried in order.
        layout: How the weights of linear layers are arranged for the kernels.
        needs: What the kernels need of a device.
        postproc: Applied to every scheduled function.
    """

    builders: Mapping[type[Signature], tuple[KernelBuilder, ...]]
    rules: tuple[ScheduleRule, ...]
    layout: WeightLayout
    needs: DeviceNeeds = ANY_CPU
    postproc: Postproc = lambda function, *_: function

    def build(self, signature: Signature, knob: Config = default_config) -> tirx.PrimFunc | None:
        """Return the first kernel that supports a signature, marked as scheduled.

        Raises:
            ValueError: The kernel does not support the configuration.
        """
        if isinstance(signature, LinearLayer):
            expected = self.layout.name
            assert signature.layout == expected, f"{signature.text}: expected layout={expected}"
        if knob is default_config:
            return self._default_kernel(signature, str(Target.current(allow_none=True)))
        return self._build(signature, knob)

    @cache  # noqa: B019 - a kernel set lives as long as the process
    def _default_kernel(self, signature: Signature, _target: str) -> tirx.PrimFunc | None:
        # Parsing a kernel takes longer than most of what follows. A process that compiles several
        # models, or tunes one, asks for the same kernels again and again; they are immutable.
        return self._build(signature, default_config)

    def _build(self, signature: Signature, knob: Config) -> tirx.PrimFunc | None:
        for builder in self.builders.get(type(signature), ()):
            kernel = builder(signature, knob)
            if kernel is not None:
                marks = {"tirx.is_scheduled": True, "tirx.noalias": True}
                is_streaming = signature.is_single_row or signature.has_few_rows
                processed = self.postproc(kernel, is_streaming, knob)
                attributes = operation_attributes(signature) | marks
                return processed.with_attrs(attributes).without_attr("global_symbol")
        return None

    def lower(
        self, definition: tirx.PrimFunc, knob: Config = default_config
    ) -> tirx.PrimFunc | None:
        """Return the kernel of a definition, or None where there is none; see :meth:`build`."""
        signature = read_signature(definition)
        return None if signature is None else self.build(signature, knob)

    def space(self, signature: Signature) -> tuple[Knob, ...] | None:
        """Return the knobs of a signature's kernel; None where there is no kernel."""
        recorder = SpaceRecorder()
        return None if self.build(signature, recorder) is None else tuple(recorder.knobs)

    def schedule(self, function: tirx.PrimFunc) -> tirx.PrimFunc:
        """Return a function scheduled by the first rule that applies; unchanged if none does."""
        for rule in self.rules:
            scheduled = rule(function)
            if scheduled is not None:
                return self.finish(scheduled, function)
        return function

    def finish(self, scheduled: tirx.PrimFunc, function: tirx.PrimFunc) -> tirx.PrimFunc:
        """Post-process a scheduled function, and mark it as scheduled.

        Args:
            scheduled: The function, scheduled.
            function: The same unscheduled, whose attributes it gets.
        """
        processed = self.postproc(scheduled, has_single_row(function), default_config)
        kept = dict((function.attrs or {}).items())
        return processed.with_attrs(kept | {"tirx.is_scheduled": True})


def has_single_row(function: tirx.PrimFunc) -> bool:
    """Whether the first extent of a function's first parameter is known to be one."""
    shape: Any = getattr(function.params[0].ty, "shape", ())
    return len(shape) > 0 and isinstance(shape[0], int | tirx.IntImm) and int(shape[0]) == 1
