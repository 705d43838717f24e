"""The start page: in the development run everything to begin with, elsewhere a door."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from apps.core.http.machine import is_own_machine, own_machine_only
from apps.portal import demonstration, selectors


@require_safe
@never_cache
def start(request: HttpRequest) -> HttpResponse:
    """Say what this is and where to log in; on the developer's own machine also what runs and what to try."""
    if not is_own_machine(request):
        return render(request, "portal/landing.html")
    logins = selectors.logins()
    sample = demonstration.sample() or _own(logins)
    context = {"logins": logins, "sample": sample, "examples": _examples(sample["organization"])}
    return render(request, "portal/start.html", {**_live(), **context})


@require_safe
@never_cache
@own_machine_only
def start_live(request: HttpRequest) -> HttpResponse:
    """Return the part of the start page that changes by itself."""
    return render(request, "portal/live.html", _live())


@require_safe
@never_cache
@own_machine_only
def start_code(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  Django's signature.
    """Return the code that the staff user's authenticator would show now."""
    logins = selectors.logins()
    if logins is None:
        raise Http404
    return HttpResponse(selectors.current_code(logins["staff"]["totp_secret"]), content_type="text/plain")


def _live() -> dict[str, Any]:
    now = timezone.now()
    return {
        "now": now,
        "demonstration": selectors.demonstration(now=now),
        "services": selectors.services(now=now),
        "tick_seconds": settings.METERING_TICK_SECONDS,
    }


def _own(logins: dict[str, Any] | None) -> dict[str, str]:
    """Return what the examples use where no demonstration ran: the organization of `bootstrap`."""
    if logins is None:
        return {"organization": "demo", "api_key": ""}
    return {"organization": logins["organization"]["slug"], "api_key": logins["api_key"]}


def _examples(slug: str) -> dict[str, str]:
    """Return the commands to copy; a try with the event twice shows that it counts once."""
    base = f"{settings.PUBLIC_URL}/api/v1"
    sku, region = selectors.sample_sku()
    ended = timezone.now().replace(microsecond=0)
    estimate = {"items": [{"meter": "gpu_hours", "sku": sku, "region": region, "quantity": "720"}]}
    event = {
        "specversion": "1.0",
        "id": f"try-{ended:%Y%m%d-%H%M%S}",
        "source": "//my-laptop",
        "type": "usage.recorded",
        "time": _rfc3339(ended),
        "data": {
            "organization": slug,
            "sku": sku,
            "region": region,
            "gpus": "8",
            "started_at": _rfc3339(ended - timedelta(hours=1)),
            "ended_at": _rfc3339(ended),
        },
    }
    json_header = "-H 'Content-Type: application/json'"
    return {
        "estimate": f'curl -s {base}/pricing/estimate \\\n  -H "X-API-Key: $API_KEY" {json_header} \\\n'
        f"  -d '{json.dumps(estimate)}'",
        "event": f'curl -s {base}/usage/events \\\n  -H "X-API-Key: $INTEGRATION_KEY" {json_header} \\\n'
        f"  -d '{json.dumps(event)}'",
        "balance": f'curl -s {base}/orgs/{slug}/balance \\\n  -H "X-API-Key: $API_KEY"',
        "invoices": f'curl -s {base}/billing/invoices \\\n  -H "X-API-Key: $API_KEY"',
    }


def _rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
