"""manage.py on its own, as a person types it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def var(parent):
    folder = parent / "var"
    yield folder
    manage(folder, "-m", "config.supervisor", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def manage(var, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, "COUNTINGHOUSE_VAR": str(var), "PORT": "18231"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_without_a_database_start_no_services(var):
    for arguments in (["help"], ["migrate", "--help"]):
        done = manage(var, "manage.py", *arguments)
        assert done.returncode == 0, done.stderr
    assert not (var / "services.json").exists()


def test_a_command_on_a_fresh_clone_brings_up_services_and_schema(var):
    done = manage(var, "manage.py", "verify_ledger")

    assert done.returncode == 0, done.stderr
    pending = manage(var, "manage.py", "migrate", "--check")
    assert pending.returncode == 0, pending.stdout


@pytest.mark.parametrize("command", [["manage.py", "migrate"], ["-m", "config.supervisor", "run"]])
def test_a_half_installed_environment_is_a_sentence(var, command):
    done = manage(var, "-S", *command)  # Without the environment's packages.

    assert done.returncode == 1
    assert "run `make setup`" in done.stderr
    assert done.stderr.count("\n") == 1
