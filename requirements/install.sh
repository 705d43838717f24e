#!/bin/sh
# Make .venv and install requirements/NAME.txt into it; instant when that is done already.
# Usage: requirements/install.sh base|dev
set -eu
cd "$(dirname "$0")/.."
name=$1

# The stamp is the list itself, copied last: a changed list or an interrupted installation differs from it.
# dev contains base: whoever has the tests' packages needs no second installation to run.
installed() { cmp -s "requirements/$1.txt" ".venv/.installed-$1"; }
if [ -x .venv/bin/python ] && { installed "$name" || { [ "$name" = base ] && installed dev; }; }; then
  exit 0
fi
python=$(sh requirements/find-python.sh)
exec "$python" requirements/install.py "$name"
