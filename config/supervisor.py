"""`make run` and `make stop`: services, schema, then web, worker, beat and the demonstration in one terminal.

With DATABASE_URL set it uses those services and starts no embedded ones, no bootstrap and no demonstration.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from config import embedded, sandbox
from config.embedded import StartError, processes
from config.embedded.folders import ROOT, make_var, var_folder, write_private

READY_SECONDS = 120
STOP_SECONDS = 20
HEALTHY_SECONDS = 30  # A child that lived this long starts again at once when it ends.
PAUSE_SECONDS_MAX = 30
EARLY_ENDS_MAX = 3
CHECK_SERVICES_SECONDS = 2

_printing = threading.Lock()


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status."""
    match arguments:
        case ["run"]:
            return Supervisor().run()
        case ["stop"]:
            say("Stopped." if stop() else "Nothing runs here.")
            return 0
        case _:
            sys.stderr.write("usage: python -m config.supervisor run|stop\n")
            return 2


def say(text: str, name: str = "") -> None:
    """Print one line, after the name of the process it comes from."""
    with _printing:
        sys.stdout.write(f"{name:<11}| {text}\n" if name else f"{text}\n")
        sys.stdout.flush()


class Stopped(Exception):
    """Somebody asked us to stop while we were starting."""


@dataclass
class Child:
    """One process that we keep alive."""

    name: str
    command: list[str]
    process: subprocess.Popen[str] | None = None
    identity: str = ""
    started_at: float = 0
    start_again_at: float | None = None
    ends_in_a_row: int = 0

    def start(self, environment: dict[str, str]) -> None:
        """Start it and forward what it prints."""
        self.process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A process group of its own: Ctrl-C reaches only us, and we stop all of them in order.
            start_new_session=True,
        )
        self.identity = processes.identity(self.process.pid)
        self.started_at = time.monotonic()
        self.start_again_at = None
        threading.Thread(target=_forward, args=(self.name, self.process.stdout), daemon=True).start()

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ask_to_stop(self) -> None:
        """Send it the polite signal."""
        if self.process is not None and self.is_alive():
            self.process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait for its end; past the deadline end its whole group by force."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            say(f"{self.name} does not stop; ending it by force.")
        _end_group(self.process.pid)
        self.process.wait()


@dataclass
class Supervisor:
    """Everything that one `make run` has started."""

    children: list[Child] = field(default_factory=list)
    started_services: bool = False
    is_ready: bool = False
    _stopping: threading.Event = field(default_factory=threading.Event)
    _endpoints: embedded.Endpoints | None = None

    def run(self) -> int:
        """Start everything, keep it alive until told to stop, then stop what was started."""
        port = _port()
        var = make_var()
        with _running_here(var, port):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: self._stopping.set())
            try:
                _require_free(port)
                credentials = self._prepare(var)
                self._start_children(var)
                self._wait_until_ready(port)
                say(_welcome(port, credentials, var))
                self._watch()
            except Stopped:
                pass
            except StartError:
                if not self._stopping.is_set():  # Ctrl-C may have interrupted what failed.
                    raise
            finally:
                self._stop(var)
        return 0

    def _prepare(self, var: Path) -> dict[str, Any]:
        """Bring up services and schema; return the development logins."""
        if os.environ.get("DATABASE_URL"):
            say("Bringing the database up to date …")
            self._manage("migrate", "--noinput", "--verbosity", "0")
            self._manage("collectstatic", "--noinput", "--verbosity", "0")
            return {}
        # Services that a killed `make run` left behind are ours; those of somebody's `manage.py` are not.
        self.started_services = embedded.endpoints() is None or bool(_record(var).get("services"))
        say("Starting PostgreSQL and Valkey …")
        self._endpoints = embedded.ensure_running()
        self._remember(var)
        if not os.environ.get("STRIPE_SECRET_KEY"):
            sandbox.reserve(var)  # Before any process reads the settings, which name the place.
        say("Bringing the database up to date …")
        answer = self._manage("bootstrap", "--json")
        try:
            credentials: dict[str, Any] = json.loads(answer)
        except ValueError:
            raise StartError(f"`manage.py bootstrap --json` answered no JSON:\n{answer}") from None
        return credentials

    def _manage(self, *arguments: str) -> str:
        """Run a command of ours to its end and return what it printed."""
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=_child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, errors = process.communicate(timeout=0.2)
                break
            if self._stopping.is_set():
                process.terminate()
                process.communicate()
        if self._stopping.is_set():
            raise Stopped
        if process.returncode != 0:
            raise StartError(
                f"{errors.strip() or output.strip()}\n`manage.py {arguments[0]}` failed, see above."
            )
        return output

    def _start_children(self, var: Path) -> None:
        python = sys.executable
        # Root may run the worker here: it accepts JSON only, and this is somebody's own machine.
        celery = [
            python,
            "-W",
            "ignore:You're running the worker",
            "-m",
            "celery",
            "--quiet",
            "--app",
            "config.celery",
        ]
        # Nothing else reads the worker's gossip, and leaving it out halves its start.
        worker = [
            "worker",
            "--loglevel",
            "WARNING",
            "--concurrency",
            "2",
            "--without-gossip",
            "--without-mingle",
        ]
        beat = ["beat", "--loglevel", "WARNING", "--schedule", str(var / "beat-schedule"), "--pidfile", ""]
        self.children = [
            Child("web", [python, "-m", "gunicorn", "--config", "config/gunicorn.py", "config.wsgi"]),
            Child("worker", [*celery, *worker]),
            Child("beat", [*celery, *beat]),
        ]
        if self._endpoints:
            self.children.append(Child("demo", [python, "manage.py", "demonstrate"]))
            if not os.environ.get("STRIPE_SECRET_KEY"):
                self.children.append(Child("stripe", [python, "-m", "apps.payments.sandbox"]))
        for child in self.children:
            child.start(_child_environment(PROCESS_KIND=_kind(child)))
        self._remember(var)

    def _wait_until_ready(self, port: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(port):
            if self._stopping.wait(0.1):
                raise Stopped
            self._start_again_what_ended()
            if time.monotonic() > deadline:
                raise StartError(f"http://127.0.0.1:{port}/readyz does not answer 200; see the lines above.")
        self.is_ready = True

    def _watch(self) -> None:
        check_at = time.monotonic() + CHECK_SERVICES_SECONDS
        while not self._stopping.wait(0.2):
            self._start_again_what_ended()
            if self._endpoints and time.monotonic() > check_at:
                self._repair_services()
                check_at = time.monotonic() + CHECK_SERVICES_SECONDS

    def _start_again_what_ended(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.process is None or child.is_alive():
                continue
            if child.start_again_at is None:
                status = child.process.returncode
                if status == 0 and child.name == "demo":
                    continue  # It has shown what it had to show.
                _end_group(child.process.pid)
                child.ends_in_a_row = (
                    1 if now - child.started_at > HEALTHY_SECONDS else child.ends_in_a_row + 1
                )
                if not self.is_ready and child.name == "web" and child.ends_in_a_row == EARLY_ENDS_MAX:
                    raise StartError(
                        f"{child.name} ended {EARLY_ENDS_MAX} times in a row; see its lines above."
                    )
                pause = min(2 ** (child.ends_in_a_row - 1), PAUSE_SECONDS_MAX)
                child.start_again_at = now + pause
                say(f"{child.name} ended unexpectedly (status {status}); starting it again in {pause} s.")
            elif now >= child.start_again_at:
                child.start(_child_environment(PROCESS_KIND=_kind(child)))
                self._remember(var_folder())

    def _repair_services(self) -> None:
        try:
            if embedded.endpoints() is not None:
                return
            say("PostgreSQL or Valkey has ended unexpectedly; starting it again.")
            endpoints = embedded.ensure_running()
        except StartError as error:
            say(str(error))
            return
        if endpoints != self._endpoints:
            self._endpoints = endpoints
            for child in self.children:  # They start again with the new addresses.
                child.ask_to_stop()

    def _stop(self, var: Path) -> None:
        if any(child.is_alive() for child in self.children):
            say("Stopping …")
        deadline = time.monotonic() + STOP_SECONDS
        # First whatever makes work, then whatever does it.
        producers = [child for child in self.children if child.name != "worker"]
        for group in (producers, [child for child in self.children if child not in producers]):
            for child in group:
                child.ask_to_stop()
            for child in group:
                child.wait(deadline)
        if self.started_services:
            embedded.stop()
        (var / "run.json").unlink(missing_ok=True)

    def _remember(self, var: Path) -> None:
        """Note what must be cleaned up if we are killed."""
        _write_record(
            var,
            services=self.started_services,
            children=[[child.process.pid, child.identity] for child in self.children if child.process],
        )


def stop() -> bool:
    """Stop a `make run` of this state folder and the embedded services; tell whether anything ran."""
    var = var_folder()
    if not var.is_dir():
        return False
    record = _record(var)
    stopped = False
    pid = record.get("pid")
    if pid and processes.identity(pid) == record.get("identity") and not _try_lock(var):
        os.kill(pid, signal.SIGTERM)
        stopped = True
        deadline = time.monotonic() + STOP_SECONDS + 60
        while processes.identity(pid) == record["identity"]:
            if time.monotonic() > deadline:
                raise StartError(f"`make run` (process {pid}) does not stop; end it, then try again.")
            time.sleep(0.1)
    leftovers = _end_leftovers(var)
    return any([embedded.stop(), leftovers, stopped])


@contextlib.contextmanager
def _running_here(var: Path, port: int) -> Iterator[None]:
    """Be the only `make run` of the state folder, and clean up after one that was killed."""
    with (var / "run.lock").open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = _record(var)
            raise StartError(
                f"Countinghouse already runs in this folder, at http://127.0.0.1:{other.get('port', port)}; "
                "`make stop` ends it, and "
                f"`COUNTINGHOUSE_VAR=/another/folder PORT={port + 1} make run` starts a second one."
            ) from None
        _end_leftovers(var)
        _write_record(var, port=port, services=_record(var).get("services", False), children=[])
        yield


def _try_lock(var: Path) -> bool:
    with (var / "run.lock").open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _end_leftovers(var: Path) -> bool:
    """End the children of a `make run` that was killed; they would hold the port."""
    leftovers = [
        pid for pid, identity in _record(var).get("children", []) if processes.identity(pid) == identity
    ]
    for pid in leftovers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for pid in leftovers:
        while processes.identity(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        _end_group(pid)
    return bool(leftovers)


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _record(var: Path) -> dict[str, Any]:
    try:
        record = json.loads((var / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(var: Path, **facts: object) -> None:
    me = {"pid": os.getpid(), "identity": processes.identity(os.getpid())}
    write_private(var / "run.json", json.dumps({**_record(var), **me, **facts}))


def _port() -> int:
    value = os.environ.get("PORT") or "8000"
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 65535:
        raise StartError(f"PORT must be a number from 1 to 65535, not {value!r}.")
    return int(value)


def _require_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except PermissionError:
            raise StartError(
                f"Port {port} is not open to you; choose another with PORT=8000 make run."
            ) from None
        except OSError:
            other = port + 1 if port < 65535 else 8000
            raise StartError(
                f"Port {port} is in use by another program; choose another with PORT={other} make run."
            ) from None


def _child_environment(**more: str) -> dict[str, str]:
    # Requests and tasks that went well would drown what matters in a terminal.
    defaults = {"LOG_LEVEL": "WARNING"}
    if "DATABASE_URL" not in os.environ:
        # Whoever watches the demonstration should not wait a minute for each step.
        defaults["METERING_TICK_SECONDS"] = "5"
    return {**defaults, **os.environ, "PYTHONUNBUFFERED": "1", **more}


def _kind(child: Child) -> str:
    return "command" if child.name in {"demo", "stripe"} else child.name


def _forward(name: str, lines: IO[str] | None) -> None:
    for line in lines or ():
        if text := line.rstrip():
            say(text, name)


def _answers(port: int) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/readyz")
    if public := os.environ.get("PUBLIC_URL"):
        request.add_header("Host", urlsplit(public).netloc)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310  Always http.
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _welcome(port: int, credentials: dict[str, Any], var: Path) -> str:
    origin = f"http://127.0.0.1:{port}"
    if not credentials:
        return f"ready {origin}"
    staff, owner = credentials["staff"], credentials["owner"]
    slug = credentials["organization"]["slug"]
    place = sandbox.find(var)
    payments = f"  Stripe sandbox  {place.url}/   test cards, faults, webhooks\n" if place else ""
    return f"""
ready {origin}

  Start page      {origin}/          what runs here, and usage turning into spend
  Staff           {origin}/admin/    {staff["email"]}   {staff["password"]}
                  its second factor, for an authenticator app: {staff["totp_secret"]}
  Customer        {origin}/accounts/login/   {owner["email"]}   {owner["password"]}
  REST            {origin}/api/docs
                  curl -H 'Authorization: Bearer {credentials["api_key"]}' {origin}/api/v1/orgs/{slug}/balance
{payments}
  All logins and keys are in {var / "bootstrap.json"}. Ctrl-C stops everything.
"""


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StartError as error:
        sys.exit(str(error))
