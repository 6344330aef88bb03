#!/bin/sh
# Debian's Python with its own C library, started by its own loader: Android's has neither.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root="$here/root"
version=$(cd "$here/packages" && echo [0-9]*)
export PYTHONHOME="$root/usr"
export PYTHONPATH="$here/code:$here/packages/$version:$here/packages/any"
# Programs that it starts are the device's own, and take the device's libraries.
unset LD_LIBRARY_PATH LD_PRELOAD
# Its own name is this file, so that a Python that it starts goes the same way. What it is run with
# is nothing on a device, and an emulator elsewhere.
exec ${MVLM_RUN_WITH:-} "$root/lib/ld-linux-aarch64.so.1" \
    --library-path "$root/lib/aarch64-linux-gnu:$root/usr/lib/aarch64-linux-gnu" \
    --argv0 "$here/python" "$root/usr/bin/python$version" "$@"
