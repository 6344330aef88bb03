"""``python -m mvlm.cli``: the command line without the script that installation makes."""

import sys
from pathlib import Path

# Where `-m` has put the current folder: an untrusted one must not provide the modules of others.
if sys.path and sys.path[0] == str(Path.cwd()):
    del sys.path[0]

from mvlm.cli import main

main()
