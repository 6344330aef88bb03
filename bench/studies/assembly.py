"""Reads the innermost loop out of the assembly that LLVM writes, for x86-64 and for aarch64."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"^(\.?[A-Za-z_][\w.$]*):")
_BRANCH = re.compile(r"(\.L\w+)$")
_COMMENT = re.compile(r"//|##|(?<!\S)#(?!-?\d)")
_VECTOR = re.compile(r"%[xyz]mm\d+|\b[vqds]\d+\b")
# An operand in memory, and the register that its address begins with.
_ARM_MEMORY = re.compile(r"\[(x\d+|sp)")
_X86_MEMORY = re.compile(r"(?:[-\w.]+)?\((%\w+)[^)]*\)")
# What takes an address off the stack pointer: `add x20, sp, #96`, `leaq 64(%rsp), %rax`.
_STACK_ADDRESS = re.compile(
    r"^(?:(?:add|sub|mov)\t(x\d+), sp\b|(?:leaq\t[^,]*\(%rsp\)|movq\t%rsp), (%r\w+)$)"
)
_WRITTEN = re.compile(r"\t(x\d+),|, (%r\w+)$")
_COMPUTES = "_compute_"  # behind a kernel's name, of the function that computes
_STACK_POINTERS = frozenset({"sp", "%rsp"})


@dataclass(frozen=True)
class Instruction:
    """An instruction, as far as counting goes.

    Attributes:
        text: Mnemonic, tab, operands.
        loads: Whether it reads memory.
        stores: Whether it writes memory.
        is_on_stack: Whether that memory is the function's own.
        is_vector: Whether a vector unit computes it; a plain load or store is none.
    """

    text: str
    loads: bool
    stores: bool
    is_on_stack: bool
    is_vector: bool

    @property
    def mnemonic(self) -> str:
        """What it does."""
        return self.text.partition("\t")[0]


def innermost_loop(assembly: str, mnemonic: str) -> tuple[Instruction, ...]:
    """Return the body of the innermost loop that holds the most instructions of a mnemonic.

    Args:
        assembly: Of one module, AT&T syntax for x86-64.
        mnemonic: What the loop is there for, ``sdot`` for instance.

    Returns:
        The loop's instructions, its branch the last; nothing if no loop has the mnemonic.
    """
    lines = _lines(assembly)
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels[label[1]] = number
        elif (branch := _BRANCH.search(line)) and branch[1] in labels:
            loops.append((labels[branch[1]], number))
    innermost = [
        (first, last)
        for first, last in loops
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in loops)
    ]

    def count(loop: tuple[int, int]) -> int:
        return sum(line.startswith(mnemonic + "\t") for line in lines[loop[0] : loop[1]])

    first, last = max(innermost, key=count, default=(0, 0))
    if not count((first, last)):
        return ()
    registers = _stack_registers(lines[:first])
    body = []
    for line in lines[first : last + 1]:
        if not _LABEL.match(line):
            body.append(_read(line, _STACK_POINTERS | registers))
            _follow(line, registers)
    return tuple(body)


def computations(assembly: str) -> dict[str, tuple[Instruction, ...]]:
    """Return the instructions of each kernel of a module that TVM has compiled.

    A kernel is a function that checks its arguments, which is left out, and one that computes, with
    those that its threads run behind it.
    """
    found: dict[str, list[Instruction]] = {}
    body: list[Instruction] | None = None
    for line in _lines(assembly):
        label = _LABEL.match(line)
        if label is None:
            if body is not None:
                body.append(_read(line, _STACK_POINTERS))
        elif label[1].endswith(_COMPUTES):
            body = found.setdefault(label[1].removesuffix(_COMPUTES), [])
        elif not label[1].startswith("."):
            body = None
    return {name: tuple(instructions) for name, instructions in found.items()}


def _lines(assembly: str) -> list[str]:
    """Return labels and instructions, without comments and directives."""
    stripped = (_COMMENT.split(line)[0].strip() for line in assembly.splitlines())
    return [line for line in stripped if line and (line[0] != "." or _LABEL.match(line))]


def _stack_registers(lines: list[str]) -> set[str]:
    """Return which registers hold addresses on the stack after the lines of a function."""
    begin = max(
        (at for at, line in enumerate(lines) if _LABEL.match(line) and line[0] != "."), default=0
    )
    registers: set[str] = set()
    for line in lines[begin:]:
        _follow(line, registers)
    return registers


def _follow(line: str, registers: set[str]) -> None:
    """Bring the registers that hold addresses on the stack up to date behind an instruction."""
    if found := _STACK_ADDRESS.match(line):
        registers.add(found[1] or found[2])
    elif written := _WRITTEN.search(line):
        registers.discard(written[1] or written[2])


def _read(line: str, stack: frozenset[str]) -> Instruction:
    mnemonic, _, operands = line.partition("\t")
    arm, x86 = _ARM_MEMORY.search(operands), _X86_MEMORY.search(operands)
    memory = None if mnemonic.startswith(("lea", "prf", "prefetch", "nop")) else arm or x86
    stores = moves = False
    if memory and arm:
        stores, moves = mnemonic.startswith("st"), True
    elif memory:
        # The destination is the last operand; a comparison has none.
        stores = operands.endswith(")") and not mnemonic.startswith(("cmp", "test"))
        moves = "mov" in mnemonic
    return Instruction(
        text=line,
        loads=bool(memory) and not stores,
        stores=stores,
        is_on_stack=memory is not None and memory[1] in stack,
        is_vector=bool(_VECTOR.search(operands)) and not moves,
    )
