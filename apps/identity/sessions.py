"""What a session proves: when its person last showed who they are, and how to ask again."""

from __future__ import annotations

from datetime import UTC, datetime

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.reauthentication import suspend_request
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from apps.identity import selectors


def proved_at(request: HttpRequest) -> datetime | None:
    """Return when the person last proved themselves in this session, by a factor that counts for a step-up.

    That is the second factor where they have one, else the password or the provider that they logged in with.
    """
    records = get_authentication_records(request, request.user)
    if selectors.has_second_factor(request.user):  # type: ignore[arg-type]
        records = [record for record in records if record.get("method") == "mfa"]
    moments = [record["at"] for record in records if "at" in record]
    return datetime.fromtimestamp(max(moments), UTC) if moments else None


def ask_again(request: HttpRequest) -> HttpResponse:
    """Send the person to the page that asks for what counts, and back; what a form sent is done after that."""
    step = "mfa_reauthenticate" if selectors.has_second_factor(request.user) else "account_reauthenticate"  # type: ignore[arg-type]
    response: HttpResponse = suspend_request(request, reverse(step))
    return response
