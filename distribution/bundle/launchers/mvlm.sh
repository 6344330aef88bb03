#!/bin/sh
# Runs mvlm out of this folder: ./mvlm chat artifact
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
exec "$here/python" -m mvlm.cli "$@"
