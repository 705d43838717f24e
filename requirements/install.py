"""Make .venv and install a list of requirements with pip; install.sh calls this with a suitable Python."""

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
VENV = FOLDER.parent / ".venv"
PYTHON = VENV / "bin" / "python"
# Packages are half there while this exists, and pip would take some of them for whole.
UNFINISHED = VENV / ".installing"


def main(name: str) -> None:
    """Install `requirements/<name>.txt`, unless another process has done so while we waited for it."""
    wanted, stamp = FOLDER / f"{name}.txt", VENV / f".installed-{name}"
    descriptor = os.open(FOLDER, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if stamp.exists() and stamp.read_bytes() == wanted.read_bytes() and _is_usable():
        return
    if VENV.exists() and (UNFINISHED.exists() or not _is_usable()):
        _say("The environment in .venv is unfinished or unusable; making it anew.")
        shutil.rmtree(VENV)
    if not VENV.exists():
        _say(f"Making .venv with Python {sys.version.split()[0]} …")
        venv.create(VENV, symlinks=True, with_pip=True)
    _say(f"Installing requirements/{name}.txt (once; up to a minute) …")
    for old in VENV.glob(".installed-*"):
        old.unlink()
    UNFINISHED.touch()
    pip = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        wanted,
    ]
    if subprocess.run(pip, check=False).returncode != 0:
        sys.exit("The packages could not be installed, see pip's message above; `make setup` tries again.")
    shutil.copyfile(wanted, stamp)
    UNFINISHED.unlink()


def _is_usable() -> bool:
    check = "import sys, pip; sys.exit(sys.version_info < (3, 12))"
    try:
        return subprocess.run([PYTHON, "-c", check], capture_output=True, check=False).returncode == 0
    except OSError:  # The Python that it links to is gone.
        return False


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit("Interrupted; `make setup` starts over.")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{VENV} could not be made ({error}); repair that, then run `make setup` again.")
