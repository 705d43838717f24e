"""Whether this process lives, and whether it can work."""

from __future__ import annotations

from contextlib import closing

from celery import current_app
from django.db import DatabaseError, connection
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import Unavailable
from apps.core.http.views import PUBLIC, ApiView, RateClass

_BROKER_SECONDS_MAX = 2


@extend_schema(exclude=True)
class Healthz(ApiView):
    """The process answers; it asks nobody else, so that an outage elsewhere restarts nothing."""

    permission = PUBLIC
    authentication_classes = ()
    rate_class = RateClass.EXEMPT

    def get(self, request: Request) -> Response:  # noqa: ARG002
        return Response({"status": "ok"})


@extend_schema(exclude=True)
class Readyz(ApiView):
    """The database and the broker answer; 503 names the one that does not."""

    permission = PUBLIC
    authentication_classes = ()
    rate_class = RateClass.EXEMPT

    def get(self, request: Request) -> Response:  # noqa: ARG002
        checks = {"database": _database_answers(), "broker": _broker_answers()}
        down = [name for name, answers in checks.items() if not answers]
        if down:
            raise Unavailable(
                _("Not answering: %(names)s.") % {"names": ", ".join(down)},
                checks={name: "ok" if answers else "down" for name, answers in checks.items()},
            )
        return Response({"status": "ok", "checks": dict.fromkeys(checks, "ok")})


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
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=_BROKER_SECONDS_MAX)
    except Exception:  # noqa: BLE001  Each transport has its own exceptions; any of them means down.
        return False
    return True
