"""``python -m mvlm.cli``: the command line without the script that installation makes."""

from mvlm.cli import main

main()
