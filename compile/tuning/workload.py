"""Workloads: what a task's key and its line in a log say of it.

A kernel is built from its operation's signature alone, so the signature's canonical text is a
kernel task's workload: rewording a definition does not invalidate a log. MetaSchedule stores
workloads as modules: a kernel task's has one empty function, which carries the text. Symbolic
extents stay symbolic; a kernel is measured with a representative value of each, and serves all.

An extracted task's workload is its function, without our attributes.
"""

from __future__ import annotations

import hashlib

import tvm
from tvm import s_tir, tirx

from mvlm.models.kv_cache import NUM_BLOCKS, PAGES, RUN_EDGES
from mvlm.models.ops.signatures import (
    ATTRIBUTE_PREFIX,
    FEW_ROWS,
    ROWS,
    Signature,
    parse_signature,
)

# What a kernel is measured with: a prompt's chunk, or a part of one, in one run, and pages of 256
# positions.
EXTENTS = {ROWS: 256, FEW_ROWS: 8, RUN_EDGES: 2, NUM_BLOCKS: 4, PAGES: 4}
# The block that carries a candidate's knobs as annotations.
ROOT_BLOCK = "root"
_SIGNATURE = "mvlm.signature"


def kernel_workload(signature: Signature) -> tvm.IRModule:
    """Return the workload of a kernel task."""
    empty = s_tir.SBlock([], [], [], ROOT_BLOCK, tirx.Evaluate(0))
    function = tirx.PrimFunc([], s_tir.SBlockRealize([], True, empty))
    attributes = {_SIGNATURE: signature.text, "global_symbol": "main"}
    return tvm.IRModule({"main": function.with_attrs(attributes)})


def function_workload(function: tirx.PrimFunc) -> tvm.IRModule:
    """Return the workload of an extracted task."""
    for name in dict((function.attrs or {}).items()):
        if name.startswith(ATTRIBUTE_PREFIX):
            function = function.without_attr(name)
    return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def signature_of(module: tvm.IRModule) -> Signature | None:
    """Return the signature of a kernel task's workload, annotated or not; None of an extracted one.

    Raises:
        ValueError: It is another version's.
    """
    text = (module["main"].attrs or {}).get(_SIGNATURE, None)
    return None if text is None else parse_signature(str(text))


def workload_key(module: tvm.IRModule) -> str:
    """Return a workload's digest, which is the same on every machine."""
    signature = signature_of(module)
    text = module.script(show_meta=False) if signature is None else signature.text
    return hashlib.sha256(text.encode()).hexdigest()
