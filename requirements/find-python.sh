#!/bin/sh
# Print the path of a Python >= 3.12, or say what to install. Candidates are run, not trusted: a pyenv shim exists for
# every version that any environment has, and fails for those not selected.
set -u

works() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 </dev/null
}

try() {
  if works "$1"; then
    # The interpreter itself rather than a shim, which a later `pyenv` setting could break.
    "$1" -c 'import sys; print(sys.executable)' </dev/null
    exit 0
  fi
}

if [ -n "${PYTHON:-}" ]; then
  try "$PYTHON"
  echo "PYTHON=$PYTHON is no Python 3.12 or newer with venv and pip; unset it or name another." >&2
  exit 1
fi
for name in python3.12 python3.13 python3.14 python3 python; do
  if command -v "$name" >/dev/null 2>&1; then try "$name"; fi
done
for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3 \
  "${XDG_DATA_HOME:-$HOME/.local/share}"/uv/python/cpython-3.1[2-9]*/bin/python3; do
  if [ -x "$path" ]; then try "$path"; fi
done
if command -v uv >/dev/null 2>&1; then
  found=$(uv python find --no-python-downloads '>=3.12' 2>/dev/null) && try "$found"
fi
echo "Countinghouse needs Python 3.12 or newer with venv: install it (for example \`apt install python3.12-venv\`, \`brew install python\`, \`pyenv install 3.12\` or \`uv python install 3.12\`), or name one with PYTHON=/path/to/python3.12." >&2
exit 1
