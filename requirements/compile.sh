#!/bin/sh
# Recompile the pinned, hashed requirements from the .in files. Needs uv; plain pip installs the result.
set -eu
cd "$(dirname "$0")"
for name in base dev production; do
  uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-header \
    --no-emit-find-links "$@" "$name.in" --output-file "$name.txt"
done
