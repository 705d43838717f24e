"""gunicorn's configuration: a few processes of threads, each with its own connection pool."""

import os
from pathlib import Path

os.environ.setdefault("PROCESS_KIND", "web")

# Without DATABASE_URL this is the development run with DEBUG on, which must not be reachable from outside.
_host = "0.0.0.0" if os.environ.get("DATABASE_URL") else "127.0.0.1"  # noqa: S104
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
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
