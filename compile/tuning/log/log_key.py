"""What a tuning log is keyed by: target, threads and the compiler's version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mvlm.compile.provenance import package_versions
from mvlm.compile.tuning.log.provenance import Provenance

_COMPILER = "apache-tvm"


@dataclass(frozen=True)
class LogKey:
    """What a log has to match to be applied.

    Attributes:
        target: The target's name.
        options: The whole TVM target.
        threads: Threads that kernels run on; None when compiling for another device, whose number
            of threads is not known here.
        versions: Versions of the packages that make the kernels.
    """

    target: str
    options: Mapping[str, Any]
    threads: int | None
    versions: Mapping[str, str]

    @classmethod
    def for_target(cls, target: str, options: Mapping[str, Any], threads: int | None) -> LogKey:
        """Return the key of a target, with the installed versions."""
        return cls(target, dict(options), threads, package_versions())

    def mismatch(self, provenance: Provenance) -> str | None:
        """Return why a log does not match, or None if it does."""
        if provenance.is_emulated:
            return "its times are an emulator's"
        return self.kernel_mismatch(provenance)

    def kernel_mismatch(self, provenance: Provenance) -> str | None:
        """Return why a log's kernels are others, or None; an emulator's log may match."""
        for what, mine, theirs in (
            (_COMPILER, self.versions[_COMPILER], provenance.versions.get(_COMPILER)),
            ("target", self.target, provenance.target),
            ("threads", self.threads, provenance.threads),
        ):
            if mine is not None and mine != theirs:
                return f"it is for {what} {theirs}, not {mine}"
        if dict(provenance.options) != dict(self.options):
            theirs, mine = _named(provenance.options), _named(self.options)
            return f"it is for another CPU: {theirs}, not {mine}"
        return None


def _named(options: Mapping[str, Any]) -> str:
    features = [str(each) for each in options.get("mattr", ()) if str(each).startswith("+")]
    return f"{options.get('mcpu', 'unnamed')} with {len(features)} features"
