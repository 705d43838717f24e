"""How logs are written: one structured line for each thing that happened, without secrets."""

from __future__ import annotations

import sys
from logging import WARNING, LogRecord
from typing import Any

import structlog

from apps.core.redaction import redact

_shared_processors: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.UnicodeDecoder(),
    redact,
]


def configure() -> None:
    """Set structlog up for this process."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,  # First: what nobody logs costs nothing.
            *_shared_processors,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def logging(*, level: str, is_console: bool) -> dict[str, Any]:
    """Return LOGGING. is_console: lines for people rather than JSON."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _shared_processors,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    # As plain text: structlog's own tracebacks show local variables, and a secret may be one.
                    structlog.processors.format_exc_info,
                    redact,
                    structlog.dev.ConsoleRenderer(
                        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
                    )
                    if is_console
                    else structlog.processors.JSONRenderer(),
                ],
            }
        },
        "filters": {"one_line": {"()": "django.utils.log.CallbackFilter", "callback": _one_line}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Its own handlers say the same again in development.
            "django": {"handlers": []},
            # Each request is one structured line of django-structlog; Django's own copy would repeat it.
            "django.server": {"level": "ERROR"},
            "django.request": {"level": "ERROR"},
            # Scanners name every host there is: that is their mistake, and where it was found tells nothing.
            "django.security.DisallowedHost": {"filters": ["one_line"]},
            "celery.app.trace": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
            # Two lines for each call; what goes wrong is logged by the gateway.
            "stripe": {"level": "WARNING"},
        },
    }


def _one_line(record: LogRecord) -> bool:
    """Keep a record as a warning, without its traceback."""
    record.levelno, record.levelname = WARNING, "WARNING"
    record.exc_info = None
    return True
