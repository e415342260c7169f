#!/bin/sh
# Builds package.wasm from ticker.c, into image/ticker or into the folder given.
# Needs Debian 12's clang, lld, wasi-libc and libclang-rt-14-dev-wasm32; COMPILER.txt names the
# versions that made the committed file, and with these it comes out the same byte for byte.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/image/ticker}
cd "$here"
"${CLANG:-clang}" --target=wasm32-wasi --sysroot=/ -isystem /usr/include/wasm32-wasi \
    -L/usr/lib/wasm32-wasi -std=c11 -Os -Wall -Wextra -Werror -Wl,--strip-all \
    -o "$out/package.wasm" ticker.c
