"""The middleware that only pages need: the API has no session and no messages, and skips all of it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django_htmx.middleware import HtmxMiddleware
from django_otp.middleware import OTPMiddleware

from apps.core.http.errors import is_api

# The one page among the API's paths; it shows who is logged in.
_DOCS = "/api/docs"


def is_page(request: HttpRequest) -> bool:
    """Return whether people look at this path, with their session."""
    return not is_api(request) or request.path == _DOCS


class _PagesOnly:
    """Mixed in before a middleware, leaves the API's requests alone."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if not is_page(request):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]  # Of the middleware beside it.


class PageSession(_PagesOnly, SessionMiddleware):
    """Sessions of pages."""


class PageUser(_PagesOnly, AuthenticationMiddleware):
    """The person of a session."""


class PageOTP(_PagesOnly, OTPMiddleware):
    """Whether the person has proved a second factor."""


class PageMessages(_PagesOnly, MessageMiddleware):
    """What the next page says first."""


class PageHtmx(_PagesOnly, HtmxMiddleware):
    """Whether a part of a page is asked for."""
