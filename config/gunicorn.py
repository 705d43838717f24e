"""gunicorn's configuration: a few processes of threads, each with its own connection pool."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("PROCESS_KIND", "web")

# Without DATABASE_URL this is the development run with DEBUG on, which must not be reachable from outside.
_host = "0.0.0.0" if os.environ.get("DATABASE_URL") else "127.0.0.1"  # noqa: S104  Production stands behind a proxy.
bind = f"{_host}:{os.environ.get('PORT') or 8000}"
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
threads = 4
# A forked copy would share its parent's pool and sockets.
preload_app = False
timeout = 30
graceful_timeout = 20
keepalive = 15
loglevel = "warning"
accesslog = None  # django-structlog writes one line per request.
control_socket_disable = True
# The heartbeat file must not wait for a slow disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  Memory; gunicorn makes its own file.

# Each worker keeps its counters in files here, so that /metrics tells of all whichever answers. Set before any of them
# loads prometheus_client, which looks once.
_metrics = os.environ.setdefault(
    "PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="countinghouse-metrics-")
)


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn's signature.
    """Close the files of a worker that has ended; its counts stay."""
    from prometheus_client import multiprocess  # noqa: PLC0415  Not in the master before the variable is set.

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # prometheus-client types it not.


def on_exit(server: Any) -> None:  # noqa: ARG001  gunicorn's signature.
    """Leave no files behind."""
    shutil.rmtree(_metrics, ignore_errors=True)
