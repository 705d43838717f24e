"""Which Python `make setup` takes, with interpreters that pretend."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "requirements" / "find-python.sh"
TOO_OLD = "#!/bin/sh\nexit 1\n"
PYENV_SHIM = "#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n"
GOOD = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'


@pytest.fixture
def machine(tmp_path):
    """A machine with the tools of a bare system and no Python yet."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname"):
        (tools / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    (tmp_path / "home").mkdir()
    return tmp_path


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)


def find(machine, **environment):
    environment = {"PATH": str(machine / "tools"), "HOME": str(machine / "home"), **environment}
    return subprocess.run(["/bin/sh", SCRIPT], env=environment, capture_output=True, text=True, check=False)


def test_runs_the_candidates_and_passes_over_old_ones_and_dead_shims(machine):
    put(machine / "tools" / "python3.12", PYENV_SHIM)
    put(machine / "tools" / "python3", TOO_OLD)
    put(machine / "tools" / "python3.13", GOOD)

    done = find(machine)

    assert done.returncode == 0
    assert Path(done.stdout.strip()).samefile(sys.executable)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "place",
    [
        "home/.pyenv/versions/3.12.1/bin/python3",
        "home/.pyenv/versions/3.13.0/bin/python3",
        "home/.local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin/python3",
    ],
)
def test_looks_where_pyenv_and_uv_keep_theirs(machine, place):
    put(machine / "tools" / "python3", TOO_OLD)
    put(machine / "home" / ".pyenv" / "versions" / "3.11.7" / "bin" / "python3", TOO_OLD)
    put(machine / place, GOOD)

    assert find(machine).returncode == 0


def test_says_what_to_install_when_there_is_none(machine):
    put(machine / "tools" / "python3", TOO_OLD)

    done = find(machine)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Countinghouse needs Python 3.12 or newer with venv: install it")
    assert done.stderr.count("\n") == 1


def test_a_python_named_by_the_user_is_taken_or_refused(machine):
    put(machine / "good", GOOD)
    put(machine / "old", TOO_OLD)
    put(machine / "tools" / "python3", GOOD)

    assert find(machine, PYTHON=str(machine / "good")).returncode == 0
    refused = find(machine, PYTHON=str(machine / "old"))
    assert refused.returncode == 1
    assert "is no Python 3.12 or newer" in refused.stderr
