"""Browsers: what they are called, and which of them a person has logged in with before."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from apps.identity.models import User

KNOWN_FOR = timedelta(days=400)  # Browsers keep no cookie longer.
_SALT = "identity.known_browser"
# The first that stands in the header names it: browsers also name those that they descend from.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)


def browser_name(user_agent: str) -> str:
    """Return a browser's name and system in words, as far as its header tells."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if browser and system:
        return _("%(browser)s on %(system)s") % {"browser": browser, "system": system}
    return browser or system or user_agent[:40] or _("Unknown browser")


def knows(request: HttpRequest, user: User) -> bool:
    """Return whether this person has logged in with this browser before, as its cookie proves."""
    return bool(request.get_signed_cookie(_cookie_of(user), default="", salt=_SALT, max_age=KNOWN_FOR))


def remember(response: HttpResponse, user: User) -> None:
    """Let a browser prove from now on that this person has logged in with it; it opens nothing."""
    response.set_signed_cookie(
        _cookie_of(user),
        "yes",  # The name says of whom, and is signed with it.
        salt=_SALT,
        max_age=KNOWN_FOR,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _cookie_of(user: User) -> str:
    return f"known_{salted_hmac(_SALT, str(user.pk), algorithm='sha256').hexdigest()[:16]}"
