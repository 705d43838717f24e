"""Whether this process lives, whether it can work, and how everything keeps up."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import redis
from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import metrics
from apps.core.errors import Unavailable
from apps.core.http.views import PUBLIC, ApiView, RateClass, Rule
from apps.core.permissions import IntegrationScope

_SECONDS_MAX = 2
_PROBED = frozenset({"/healthz", "/readyz", "/metrics", "/monitoring/health/detailed"})


class ProbesByAddress:
    """Let probes and scrapers name any Host: they know the address of a process, and no answer to them has a link."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path in _PROBED:
            request.META["HTTP_HOST"] = urlsplit(settings.PUBLIC_URL).netloc
        return self.get_response(request)


@extend_schema(exclude=True)
class Healthz(ApiView):
    """The process answers; it asks nobody else, so that an outage elsewhere restarts nothing."""

    permission = PUBLIC
    authentication_classes = ()
    rate_class = RateClass.EXEMPT

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


@extend_schema(exclude=True)
class Readyz(ApiView):
    """The database and the broker answer; 503 names the one that does not."""

    permission = PUBLIC
    authentication_classes = ()
    rate_class = RateClass.EXEMPT

    def get(self, request: Request) -> Response:
        checks = {"database": _database_answers(), "broker": _broker_answers()}
        down = [name for name, answers in checks.items() if not answers]
        if down:
            raise Unavailable(
                _("Not answering: %(names)s.") % {"names": ", ".join(down)},
                checks={name: "ok" if answers else "down" for name, answers in checks.items()},
            )
        return Response({"status": "ok", "checks": dict.fromkeys(checks, "ok")})


@extend_schema(exclude=True)
class DetailedHealth(ApiView):
    """Each part with how long its answer took, and the figures of the backlogs: 503 where what is needed is down.

    `valkey` is not needed: without it the limits of rates are counted by each process alone.
    """

    permission = IntegrationScope.METRICS_READ
    rate_class = RateClass.EXEMPT

    def rule_for(self, method: str) -> Rule:
        return PUBLIC if settings.METRICS_PUBLIC else super().rule_for(method)

    def get(self, request: Request) -> Response:
        checks = {"database": _timed(_database_answers), "broker": _timed(_broker_answers)}
        status = "ok" if all(check["status"] == "ok" for check in checks.values()) else "down"
        if settings.REDIS_URL:
            checks["valkey"] = _timed(_valkey_answers)
            if status == "ok" and checks["valkey"]["status"] == "down":
                status = "degraded"
        figures = metrics.figures(timezone.now()) if checks["database"]["status"] == "ok" else {}
        content = {"status": status, "checks": checks, "figures": figures}
        return Response(content, status=503 if status == "down" else 200)


def _timed(answers: Callable[[], bool]) -> dict[str, Any]:
    started = time.perf_counter()
    status = "ok" if answers() else "down"
    return {"status": status, "milliseconds": round((time.perf_counter() - started) * 1000)}


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _broker_answers() -> bool:
    try:
        with closing(current_app.connection_for_write()) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=_SECONDS_MAX)
    except Exception:  # noqa: BLE001  Each transport has its own exceptions; any of them means down.
        return False
    return True


def _valkey_answers() -> bool:
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=_SECONDS_MAX, socket_connect_timeout=_SECONDS_MAX
    )
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()
