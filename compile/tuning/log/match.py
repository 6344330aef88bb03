"""Whether a log is about what is to be compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mvlm.compile.provenance import package_versions
from mvlm.compile.tuning.log.provenance import Provenance

_COMPILER = "apache-tvm"


@dataclass(frozen=True)
class Subject:
    """What a log has to be about.

    Attributes:
        target: The target's name.
        options: The whole TVM target.
        threads: Threads that kernels run on; None where the device is another one, so that nobody
            knows here.
        versions: Of what makes the kernels.
    """

    target: str
    options: Mapping[str, Any]
    threads: int | None
    versions: Mapping[str, str]

    @classmethod
    def of(cls, target: str, options: Mapping[str, Any], threads: int | None) -> Subject:
        """Return it, with the installed versions."""
        return cls(target, dict(options), threads, package_versions())

    def difference(self, provenance: Provenance) -> str | None:
        """Return why a log is not about this, or None if it is."""
        if provenance.is_emulated:
            return "its times are an emulator's"
        return self.difference_of_kernels(provenance)

    def difference_of_kernels(self, provenance: Provenance) -> str | None:
        """Return why a log's kernels are not these, whatever their times are."""
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
