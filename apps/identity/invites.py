"""Where a person is going who signs up because of an invite."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest
from django.urls import Resolver404, resolve

_PAGE = "invite-by-link"


def token_of_target(request: HttpRequest) -> str:
    """Return the token of the invite to which a form leads back, empty where it leads elsewhere."""
    target = request.POST.get(REDIRECT_FIELD_NAME) or request.GET.get(REDIRECT_FIELD_NAME) or ""
    try:
        found = resolve(urlsplit(target).path)
    except (Resolver404, ValueError):
        return ""
    return str(found.kwargs["token"]) if found.url_name == _PAGE else ""
