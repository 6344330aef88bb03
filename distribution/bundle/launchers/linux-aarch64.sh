#!/bin/sh
# The device's own Python, of a version that there are packages for, with our packages.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
found=
for python in python3 python3.13 python3.12 python3.11 python3.10; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    found="$found $version"
    if [ -d "$here/packages/$version" ]; then
        # In the place of the user's own, whose modules could hide those of the bundle.
        export PYTHONPATH="$here/code:$here/packages/$version:$here/packages/any"
        exec "$python" "$@"
    fi
done
known=$(cd "$here/packages" && echo [0-9]*)
echo "error: no Python that this bundle has packages for: expected one of $known, found${found:- none}. Install one, for instance with \`apt-get install python3\`." >&2
exit 1
