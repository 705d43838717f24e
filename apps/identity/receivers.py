"""What allauth and Django report: which sessions have passed a second factor."""

from __future__ import annotations

from typing import Any

import django_otp
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import record_authentication
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_added, authenticator_used
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest

from apps.identity import services
from apps.identity.models import User
from apps.identity.selectors import VERIFYING_TYPES


@receiver(user_logged_in)
def verify_session_at_login(request: HttpRequest | None, user: User, **_more: Any) -> None:
    """Mark a new session as verified when its login passed a second factor that still exists."""
    if request is None:
        return
    for record in get_authentication_records(request, user):
        if record.get("method") == "mfa" and services.authenticator_of(
            user=user, authenticator_id=record["id"]
        ):
            django_otp.login(request, services.verifying_device(user))
            return


@receiver(authenticator_used)
def verify_session_at_step_up(request: HttpRequest, user: User, **_more: Any) -> None:
    """Mark a running session as verified once its user has shown a second factor again."""
    if request.user.is_authenticated and request.user.pk == user.pk:
        django_otp.login(request, services.verifying_device(user))


@receiver(authenticator_added)
def verify_session_at_enrolment(
    request: HttpRequest, user: User, authenticator: Authenticator, **_more: Any
) -> None:
    """Mark the session that enrolled a factor as verified and stepped up: it has just shown a code of it.

    Without the record, the recovery codes made along with it would be shown only after a second code.
    """
    if authenticator.type in VERIFYING_TYPES:
        proof = {"id": authenticator.pk, "type": authenticator.type, "reauthenticated": True}
        record_authentication(request, user, "mfa", **proof)
        django_otp.login(request, services.device_of(authenticator))
