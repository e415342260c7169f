#!/bin/sh
# Builds the executables, into image/ticker or into the folder given: the script is its own
# executable on every architecture.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/image/ticker}
for arch in x86_64 aarch64; do
    cp "$here/ticker.sh" "$out/package.exe.$arch"
    chmod 755 "$out/package.exe.$arch"
done
