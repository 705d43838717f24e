#!/bin/sh
# Make .venv and install requirements/NAME.txt into it; instant when that is already done.
# Usage: requirements/install.sh base|dev
set -eu
cd "$(dirname "$0")/.."
name=$1

# A stamp names the file's checksum and is written last, so an interrupted installation is simply done again.
# dev contains base: whoever has the tests' packages needs no second installation to run.
wanted() { cksum <"requirements/$1.txt"; }
installed() { [ -f ".venv/.installed-$1" ] && [ "$(cat ".venv/.installed-$1")" = "$(wanted "$1")" ]; }
usable() { .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; }

if [ -d .venv ] && ! usable; then
  echo "The environment in .venv is unusable; making it anew." >&2
  rm -rf .venv
fi
if installed "$name" || { [ "$name" = base ] && installed dev; }; then exit 0; fi
if [ ! -d .venv ]; then
  python=$(sh requirements/find-python.sh)
  echo "Making .venv with $("$python" --version) …" >&2
  "$python" -m venv .venv || { rm -rf .venv; echo "The folder $(pwd) must be writable to make .venv in it." >&2; exit 1; }
fi
echo "Installing requirements/$name.txt (once; up to a minute) …" >&2
rm -f .venv/.installed-*
if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "requirements/$name.txt"; then
  echo "The packages could not be installed: see pip's message above; \`make setup\` tries again." >&2
  exit 1
fi
wanted "$name" >".venv/.installed-$name"
