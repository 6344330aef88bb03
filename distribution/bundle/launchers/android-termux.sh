#!/bin/sh
# Debian's Python with its own C library, in a file system that proot shows to it: Android forbids
# apps some calls of the system, which proot answers in its place.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if ! command -v proot >/dev/null; then
    echo "error: proot is not installed: run \`pkg install proot\`." >&2
    exit 1
fi
version=$(cd "$here/packages" && echo [0-9]*)
set -- "/usr/bin/python$version" "$@"
# Folders keep their names, so that files are found; of the system's, what there is.
for place in /dev /proc /sys /data /sdcard /storage /system /apex "$here" "$PWD"; do
    if [ -d "$place" ]; then
        set -- --bind="$place" "$@"
    fi
done
unset LD_PRELOAD
export PYTHONHOME=/usr
export PYTHONPATH="$here/code:$here/packages/$version:$here/packages/any"
exec proot --rootfs="$here/root" --cwd="$PWD" ${MVLM_PROOT_OPTIONS:-} "$@"
