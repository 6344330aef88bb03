"""Runs an installed module as a program: ``python start_module.py MODULE [ARGUMENT]...``.

``python -m MODULE`` puts the current folder first on the module search path. In the folder of an
untrusted checkpoint it would run a `tvm.py` or `random.py` that lies there. Every Python process of
ours is therefore started by this file (:func:`module_command`), which takes the current folder off
the search path before it imports anything. Python's own switches do not suffice: ``-P`` is missing
in Python 3.10, and ``-I`` ignores the variables by which a bundle finds its packages.
"""

import os
import sys


def drop_current_folder() -> None:
    """Take the current folder off this process's module search path.

    Also drops what relative entries of ``PYTHONPATH`` became: an empty one, as in ``:/opt/lib``,
    means the current folder. Absolute entries stay, since a user named those folders.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [entry for entry in entries if os.path.isabs(entry)]
    dropped = {"", "."}
    if len(absolute) < len(entries) and entries != [""]:
        relative = [entry for entry in entries if not os.path.isabs(entry)]
        dropped |= {*_absolute(relative)} - {*absolute}
        os.environ["PYTHONPATH"] = os.pathsep.join(absolute)
    sys.path[:] = [entry for entry in sys.path if entry not in dropped]
    # For Python 3.11 and later, when another package's code starts a Python process.
    os.environ["PYTHONSAFEPATH"] = "1"


def _absolute(entries: list[str]) -> list[str]:
    """Return relative entries as Python has put them on the search path while it started."""
    try:
        return [os.path.abspath(entry) for entry in entries]
    except OSError:  # the current folder is gone, and so are they
        return []


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a new Python process.

    Args:
        module: The module's full name; if it is a package, its `__main__` is run.
        arguments: The program's arguments.
    """
    return [sys.executable, os.path.abspath(__file__), module, *arguments]


def _main() -> None:
    # Python puts a script's folder first, where this file's neighbours would hide modules of the
    # standard library, `profile` for one.
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
        del sys.path[0]
    drop_current_folder()
    import runpy

    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
