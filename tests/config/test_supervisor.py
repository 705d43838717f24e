"""`make run` and `make stop` with real processes, on a tiny project in place of ours."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.threads import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = {
    "manage.py": """
        import json, os, pathlib, sys, time
        if sys.argv[1] == "bootstrap":
            from config import embedded
            assert embedded.endpoints(), "the services must run by now"
            person = {"email": "staff@example.com", "password": "pw", "totp_secret": "ABC"}
            demo = {"id": "1", "slug": "demo"}
            print(json.dumps({"staff": person, "owner": person, "organization": demo, "api_key": "ch_1"}))
        if sys.argv[1] == "demonstrate":
            print("demonstrating", flush=True)
            time.sleep(600)
        if sys.argv[1] in ("migrate", "collectstatic"):
            pathlib.Path(os.environ["COUNTINGHOUSE_VAR"], sys.argv[1]).touch()
    """,
    "config/wsgi.py": """
        import os
        def application(environ, start_response):
            start_response("200 OK", [])
            return [f"{os.getpid()} {os.environ['PROCESS_KIND']}".encode()]
    """,
    "config/celery.py": """
        import os
        from celery import Celery
        from config import embedded
        endpoints = embedded.endpoints()
        app = Celery("tiny", broker=endpoints.valkey_url if endpoints else os.environ["CELERY_BROKER_URL"])
        app.conf.broker_connection_retry_on_startup = True
        app.conf.beat_schedule = {"tick": {"task": "tick", "schedule": 1}}
        @app.task(name="tick")
        def tick():
            print("ticked", flush=True)
    """,
    "apps/payments/sandbox/__main__.py": """
        import json, os, pathlib, time
        place = json.loads(pathlib.Path(os.environ["COUNTINGHOUSE_VAR"], "sandbox.json").read_text())
        print("sandbox on", place["port"], flush=True)
        time.sleep(600)
    """,
}


class Run:
    """A `make run` in the background, with what it prints."""

    def __init__(self, project, var, port, **environment):
        self.project, self.var, self.port = project, var, port
        self.log = var.with_suffix(".out")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "config.supervisor", "run"],
                cwd=project,
                env=environment_of(var, port, **environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def until(self, pattern, seconds=300):
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.output(), re.MULTILINE)):
            assert self.process.poll() is None, f"ended early:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.output()}"
            time.sleep(0.05)
        return found

    def output(self):
        return self.log.read_text(errors="replace")

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(60)

    def children(self):
        return [pid for pid, _identity in json.loads((self.var / "run.json").read_text())["children"]]


def environment_of(var, port, **more):
    unwanted = ("DATABASE_URL", "CELERY_BROKER_URL", "PUBLIC_URL", "PROCESS_KIND", "DJANGO_SETTINGS_MODULE")
    inherited = {key: value for key, value in os.environ.items() if key not in unwanted}
    return {**inherited, "COUNTINGHOUSE_VAR": str(var), "PORT": str(port), "WEB_CONCURRENCY": "1", **more}


def command(project, var, module, *arguments, port=8000):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=project,
        env=environment_of(var, port),
        capture_output=True,
        text=True,
        check=False,
    )


def is_alive(pid):
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    return False


def get(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS) as answer:
        return answer.read().decode()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def status(run):
    """What `python -m config.embedded status` says about the services of a run."""
    return command(run.project, run.var, "config.embedded", "status").stdout


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def project(parent) -> Path:
    folder = parent / "project"
    shutil.copytree(ROOT / "config" / "embedded", folder / "config" / "embedded")
    for name in ("__init__.py", "supervisor.py", "gunicorn.py", "sandbox.py"):
        shutil.copy(ROOT / "config" / name, folder / "config" / name)
    for name, content in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(re.sub(r"(?m)^ {8}", "", content))
    return folder


@pytest.fixture(scope="module")
def var(project, parent) -> Iterator[Path]:
    yield parent / "var"
    stopped = command(project, parent / "var", "config.supervisor", "stop")
    assert stopped.returncode == 0, stopped.stderr


@pytest.fixture(scope="module")
def shared(project, parent) -> Iterator[Run]:
    """One run for several tests; each leaves it as it found it."""
    run = Run(project, parent / "shared", free_port())
    run.until("^ready ")
    yield run
    children = run.children()

    assert run.end(signal.SIGTERM) == 0
    assert not any(is_alive(pid) for pid in children)
    assert status(run) == "Not running.\n"
    assert not (run.var / "run.json").exists()


def test_starts_everything_and_says_where(shared):
    lines = shared.output().splitlines()
    assert f"ready http://127.0.0.1:{shared.port}" in lines
    assert str(shared.var / "bootstrap.json") in shared.output()
    assert get(shared.port).endswith(" web")
    assert len(shared.children()) == 5
    shared.until(r"^demo {7}\| demonstrating$")
    shared.until(r"^worker {5}\| .*ticked")
    shared.until(r"^stripe {5}\| sandbox on \d+$")
    assert re.search(r"^  Stripe sandbox  http://127\.0\.0\.1:\d+/", shared.output(), re.MULTILINE)


def test_a_second_run_in_the_same_folder_is_refused_with_a_sentence(shared, project):
    second = command(project, shared.var, "config.supervisor", "run", port=shared.port + 1)

    assert second.returncode == 1
    sentence = (
        f"Countinghouse already runs in this folder, at http://127.0.0.1:{shared.port}; `make stop` ends it"
    )
    assert second.stderr.startswith(sentence)
    assert get(shared.port)


def test_a_child_that_dies_is_started_again_and_the_end_is_said(shared):
    web = shared.children()[0]

    os.kill(web, signal.SIGKILL)

    shared.until(r"^web ended unexpectedly \(status -9\); starting it again in 1 s\.")
    wait_until(lambda: shared.children()[0] != web and get(shared.port).endswith(" web"))


def test_servers_that_die_are_started_again(shared):
    for service in json.loads((shared.var / "services.json").read_text()).values():
        os.kill(service["pid"], signal.SIGKILL)

    shared.until("^PostgreSQL or Valkey has ended unexpectedly")
    wait_until(lambda: status(shared).startswith("postgresql://"))


def test_starts_again_after_kill_9_of_the_supervisor_and_stops_from_another_terminal(project, var):
    killed = Run(project, var, free_port())
    killed.until("^ready ")
    orphans = killed.children()
    killed.process.kill()
    killed.process.wait()

    second = Run(project, var, killed.port)  # The orphan no longer holds the port.
    second.until("^ready ")
    assert not any(is_alive(pid) for pid in orphans)

    assert command(project, var, "config.supervisor", "stop").stdout == "Stopped.\n"
    assert second.process.wait(5) == 0
    assert status(second) == "Not running.\n"
    assert command(project, var, "config.supervisor", "stop").stdout == "Nothing runs here.\n"


def test_services_that_somebody_else_started_stay(project, var):
    assert command(project, var, "config.embedded", "start").returncode == 0
    run = Run(project, var, free_port())
    run.until("^ready ")

    assert run.end(signal.SIGINT) == 0

    assert "Traceback" not in run.output()
    assert status(run).startswith("postgresql://")
    assert command(project, var, "config.supervisor", "stop").stdout == "Stopped.\n"


def test_uses_the_services_of_the_environment_when_they_are_named(project, var, tmp_path):
    assert command(project, var, "config.embedded", "start").returncode == 0
    database, broker = command(project, var, "config.embedded", "status").stdout.split()
    own = tmp_path / "own"

    run = Run(project, own, free_port(), DATABASE_URL=database, CELERY_BROKER_URL=broker)
    run.until(f"^ready http://127.0.0.1:{run.port}$")

    assert run.end(signal.SIGTERM) == 0
    assert not (own / "services.json").exists()
    assert {(own / name).exists() for name in ("migrate", "collectstatic")} == {True}
    assert "demonstrating" not in run.output()


def test_a_taken_port_is_a_sentence(project, var):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        done = command(project, var, "config.supervisor", "run", port=port)

    assert done.returncode == 1
    assert (
        done.stderr
        == f"Port {port} is in use by another program; choose another with PORT={port + 1} make run.\n"
    )


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "8000.5"])
def test_a_senseless_port_is_a_sentence(project, var, port):
    done = command(project, var, "config.supervisor", "run", port=port)

    assert done.returncode == 1
    assert done.stderr == f"PORT must be a number from 1 to 65535, not '{port}'.\n"


def test_an_application_that_cannot_start_ends_the_run_with_its_reason(project, var, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(project, broken)
    (broken / "config" / "wsgi.py").write_text("raise RuntimeError('no setting')\n")

    run = Run(broken, var, free_port())

    assert run.process.wait(90) == 1
    assert "RuntimeError: no setting" in run.output()
    assert run.output().rstrip().endswith("web ended 3 times in a row; see its lines above.")
