#!/bin/sh
# Runs mvlm out of this folder: ./mvlm chat artifact
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# Not by -m, which would import modules from the current folder.
exec "$here/python" "$here/code/mvlm/runtime/start_module.py" mvlm.cli "$@"
