"""Where PostgreSQL, the broker, the cache and the mail server are, and how Django talks to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from config import embedded
from config.environment import Environment

# Commands that need no database (help, makemigrations, check) also run before the services were ever started.
_NOT_STARTED = "postgresql://countinghouse@127.0.0.1:1/countinghouse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """URLs of the services. broker, redis: "" where there is none."""

    database: str
    broker: str
    redis: str


def addresses(env: Environment) -> Addresses:
    """Return where the services are: as the environment says, else where the embedded ones run."""
    broker = env.celery_broker_url.get_secret_value() if env.celery_broker_url else ""
    redis = env.redis_url.get_secret_value() if env.redis_url else ""
    if env.database_url is not None:
        redis = redis or broker
        is_redis = redis.startswith(("redis://", "rediss://", "unix://"))
        return Addresses(
            database=env.database_url.get_secret_value(), broker=broker, redis=redis if is_redis else ""
        )
    running = embedded.endpoints()
    return Addresses(
        database=running.database_url if running else _NOT_STARTED,
        broker=broker or (running.valkey_url if running else ""),
        redis=redis or (running.valkey_url if running else ""),
    )


def database(
    url: str, *, process_kind: str, lock_timeout_ms: int, statement_timeout_ms: int, work_mem_mb: int
) -> dict[str, Any]:
    """Return the database of a URL whose query holds further options, as DATABASES has it."""
    parts = urlsplit(url)
    options: dict[str, Any] = {
        "application_name": f"countinghouse-{process_kind}",
        "options": f"-c lock_timeout={lock_timeout_ms} -c statement_timeout={statement_timeout_ms}"
        f" -c work_mem={work_mem_mb}MB",
    }
    for pair in filter(None, parts.query.split("&")):
        key, _equals, value = pair.partition("=")
        options[key] = unquote(value)
    if process_kind == "web":
        options["pool"] = {"min_size": 1, "max_size": 8, "timeout": 5}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
        # A pool replaces persistent connections; Celery closes a pool after each task but keeps connections.
        "CONN_MAX_AGE": 600 if process_kind == "worker" else 0,
        "CONN_HEALTH_CHECKS": process_kind == "worker",
    }


def caches(redis_url: str) -> dict[str, Any]:
    """Return CACHES; each process keeps its own where there is no Redis or Valkey."""
    if not redis_url:
        return {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    return {
        "default": {
            "BACKEND": "apps.core.cache.PatientRedisCache",
            "LOCATION": redis_url,
            "KEY_PREFIX": "countinghouse",
            "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
        }
    }


def mailer(env: Environment) -> dict[str, Any]:
    """Return what sends mails: the mail server, in the development run the mailbox, else nothing."""
    if env.email_url is None:
        return {"BACKEND": f"apps.notifications.mailbox.{'Mailbox' if env.debug else 'NoServer'}"}
    parts = urlsplit(env.email_url.get_secret_value())
    return {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {
            "host": parts.hostname or "localhost",
            "port": parts.port or (465 if parts.scheme == "smtps" else 587),
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "use_ssl": parts.scheme == "smtps",
            "use_tls": parts.scheme == "smtp" and parts.port not in (25, 1025),
            "timeout": 10,
        },
    }
