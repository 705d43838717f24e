"""A throwaway stack: own services, own database, own web workers, gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WEB_WORKERS = 2
# On a disk; /tmp may be memory.
FOLDER = "/var/tmp"  # noqa: S108
START_SECONDS_MAX = 300


def prepare() -> Path:
    """Point this process at fresh embedded services with fsync on, and set Django up; return the folder they use."""
    folder = Path(tempfile.mkdtemp(prefix="countinghouse-bench-", dir=FOLDER))
    folder.chmod(0o755)
    os.environ |= {"COUNTINGHOUSE_VAR": str(folder), "LOG_LEVEL": "ERROR", "PORT": str(free_port())}
    os.environ.pop("DATABASE_URL", None)
    from config import embedded, sandbox

    embedded.ensure_running()
    sandbox.reserve(folder)
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    return folder


def require_disk(wanted: int) -> None:
    """Stop before anything is written if the bytes wanted would not leave a tenth of the disk free."""
    usage = shutil.disk_usage(FOLDER)
    if usage.free - wanted < usage.total // 10:
        raise SystemExit(
            f"This needs {wanted / 1e9:.0f} GB in {FOLDER} and a tenth of the disk left; "
            f"{usage.free / 1e9:.0f} GB are free."
        )


def remove(folder: Path) -> None:
    """Stop the services and delete everything."""
    from config import embedded

    embedded.stop()
    shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def web(application: str, path: str) -> Iterator[tuple[int, int]]:
    """Serve a WSGI application with two workers as in production; yield its port and the master's pid."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--config",
            "config/gunicorn.py",
            "--bind",
            f"127.0.0.1:{port}",
            application,
        ],
        env={**os.environ, "PORT": str(port), "WEB_CONCURRENCY": str(WEB_WORKERS), "PROCESS_KIND": "web"},
    )
    try:
        until = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).close()
                break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise
                time.sleep(0.2)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def peak_rss_mb(pid: int) -> int:
    """Return the most memory a process ever held, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0


def children(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in listed.split()]


def cpu_ms(pids: list[int]) -> int:
    """Return the processor time that processes and their ended children used so far, in milliseconds."""
    return sum(_cpu_ticks(pid) for pid in pids) * 1000 // os.sysconf("SC_CLK_TCK")


def postgres_cpu_ms() -> int:
    """Return the processor time of all of PostgreSQL's processes, in milliseconds."""
    file = next(Path(os.environ["COUNTINGHOUSE_VAR"]).rglob("postmaster.pid"))
    postmaster = int(file.read_text(encoding="utf-8").splitlines()[0])
    return cpu_ms([postmaster, *children(postmaster)])


def machine_ticks() -> list[int]:
    """Return the whole machine's processor time by kind since it started, in ticks."""
    line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    return [int(field) for field in line.split()[1:]]


def stolen_share(before: list[int]) -> float:
    """Return the share of the processor time wanted since `before` that the host gave to other machines."""
    user, nice, system, _idle, _wait, hard, soft, stolen = (
        now - then for now, then in zip(machine_ticks()[:8], before[:8], strict=True)
    )
    return round(stolen / max(user + nice + system + hard + soft + stolen, 1), 3)


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except FileNotFoundError:  # It ended just now; its parent counts it.
        return 0
    return sum(map(int, fields[11:15]))
