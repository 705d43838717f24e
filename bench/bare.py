"""The least a Django view can cost: no middleware, no database, one constant answer."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="not secret", MIDDLEWARE=[])  # noqa: S106


def answer(_request: HttpRequest) -> JsonResponse:
    """Return a constant."""
    return JsonResponse({"ok": True})


urlpatterns = [path("", answer)]
application: Any = get_wsgi_application()
