"""What every template can say about the operator, and about the person who sees it."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from apps.core.http import brand as brands
from apps.core.http.navigation import shell_of


def brand(request: HttpRequest) -> dict[str, object]:  # noqa: ARG001  Django's signature.
    """Return the operator's name and looks, whether anybody may sign up, and whether this is the development run."""
    return {
        **brands.facts(),
        "signup_is_open": settings.SIGNUP_OPEN,
        "is_development": settings.DEBUG,
    }


def shell(request: HttpRequest) -> dict[str, object]:
    """Return what surrounds a page of the portal; asked for only by templates that show it."""
    return {"shell": SimpleLazyObject(lambda: shell_of(request))}
