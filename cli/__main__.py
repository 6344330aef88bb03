"""``python -m mvlm.cli``: the command line without the script that installation makes."""

import os
import sys
from contextlib import suppress

# Where `-m` has put the current folder: an untrusted one must not provide the modules of others.
with suppress(OSError):  # the current folder is gone
    if sys.path and sys.path[0] == os.getcwd():  # noqa: PTH109  # pathlib is imported after this
        del sys.path[0]

from mvlm.cli import main

main()
