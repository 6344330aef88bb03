#!/bin/sh
# Builds TVM's runtime out of this folder, with whatever compiler there is: CXX=clang++ sh build.sh
# In Termux: pkg install clang, then sh build.sh
set -eu
cd "$(dirname -- "$0")"
: "${CXX:=clang++}" "${JOBS:=$(nproc)}"
mkdir -p objects/ffi objects/runtime

options="-std=c++17 -O2 -fPIC -w -fvisibility=hidden -fvisibility-inlines-hidden -pthread
    -DNDEBUG -DTVM_FFI_EXPORTS=1 -DTVM_FFI_USE_LIBBACKTRACE=0 -DTVM_FFI_BACKTRACE_ON_SEGFAULT=0
    -DTVM_RUNTIME_EXPORTS=1 -Iinclude -Iffi/include -Iffi/3rdparty/dlpack/include -Isrc"

# A compiler for each file, so many at once.
compile() {
    find "$1" -name '*.cc' | sort | xargs -P "$JOBS" -I FILE sh -c '
        object="$2/$(echo "$1" | tr / -).o"
        echo "$1"
        '"$CXX"' $3 -c "$1" -o "$object"' sh FILE "$2" "$options"
}
compile ffi/src objects/ffi
compile src/runtime objects/runtime

link="-shared -pthread -Wl,-z,max-page-size=65536"
# shellcheck disable=SC2086
$CXX $link -Wl,-soname,libtvm_ffi.so -o libtvm_ffi.so objects/ffi/*.o -ldl
# shellcheck disable=SC2086
$CXX $link -Wl,-soname,libtvm_runtime.so -o libtvm_runtime.so objects/runtime/*.o -L. -ltvm_ffi -ldl
rm -r objects
echo "libtvm_ffi.so and libtvm_runtime.so are built"
