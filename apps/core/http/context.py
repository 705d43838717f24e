"""What every template can say about the operator."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest


def brand(request: HttpRequest) -> dict[str, object]:  # noqa: ARG001  Django's signature.
    """Return the operator's name and whether this is the development run."""
    return {"brand_name": settings.BRAND_NAME, "is_development": settings.DEBUG}
