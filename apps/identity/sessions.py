"""What a session proves, how to ask for more, and which sessions a person has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.reauthentication import suspend_request
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from apps.identity import selectors
from apps.identity.browsers import browser_name
from apps.identity.models import User


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One session as its person may recognize it."""

    id: int
    browser: str
    address: str
    began_at: datetime
    is_current: bool


def proved_at(request: HttpRequest) -> datetime | None:
    """Return when the person last proved themselves in this session, by a factor that counts for a step-up.

    That is the second factor where they have one, else the password or the provider that they logged in with.
    """
    records = get_authentication_records(request, request.user)
    if selectors.has_second_factor(request.user):
        records = [record for record in records if record.get("method") == "mfa"]
    moments = [record["at"] for record in records if "at" in record]
    return datetime.fromtimestamp(max(moments), UTC) if moments else None


def ask_again(request: HttpRequest) -> HttpResponse:
    """Send the person to the page that asks for what counts, and back; what a form sent is done after that."""
    user = request.user
    assert isinstance(user, User), "only who is logged in is asked again"
    factors = selectors.factors_of(user.pk)
    if factors.enabled:
        step = "mfa_reauthenticate" if factors.totp else "mfa_reauthenticate_webauthn"
    elif user.has_usable_password():
        step = "account_reauthenticate"
    else:
        return log_in_again(request)
    response: HttpResponse = suspend_request(request, reverse(step))
    return response


def log_in_again(request: HttpRequest) -> HttpResponse:
    """Log out somebody who has only a provider to prove themselves with, and send them to the login and back."""
    target = request.get_full_path() if request.method in {"GET", "HEAD"} else reverse("security")
    logout(request)
    messages.info(request, _("Log in again to confirm that it is you."))
    return redirect_to_login(target)


def sessions_of(request: HttpRequest) -> Sequence[SessionRow]:
    """Return where the person is logged in, this session first, then the newest."""
    found = UserSession.objects.purge_and_list(request.user)
    rows = [
        SessionRow(
            id=session.pk,
            browser=browser_name(session.user_agent),
            address=session.ip,
            began_at=session.created_at,
            is_current=session.session_key == request.session.session_key,
        )
        for session in sorted(found, key=lambda session: session.created_at, reverse=True)
    ]
    return sorted(rows, key=lambda row: not row.is_current)
