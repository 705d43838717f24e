"""What allauth and Django report: which sessions have passed a second factor, and what changed of an account."""

from __future__ import annotations

from typing import Any

import django_otp
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import record_authentication
from allauth.account.models import EmailAddress
from allauth.account.signals import (
    email_changed,
    password_changed,
    password_reset,
    password_set,
    user_signed_up,
)
from allauth.account.signals import user_logged_in as allauth_logged_in
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import (
    authenticator_added,
    authenticator_removed,
    authenticator_reset,
    authenticator_used,
)
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.signals import social_account_added, social_account_removed
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from apps.core import metrics
from apps.core.actor import Actor, ActorKind
from apps.core.http.address import client_address
from apps.identity import browsers, notices, services
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


@receiver(user_login_failed)
def count_failed_login(**_more: Any) -> None:
    """Count an address or password that did not hold on a page; which of the two, Django does not say."""
    metrics.count_failed_authentication(metrics.PERSON, "wrong_login_on_page")


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


@receiver(user_logged_in)
def note_login(request: HttpRequest | None, user: User, **_more: Any) -> None:
    """Write down a login in a browser, with what was shown for it."""
    if request is not None:
        methods = [record.get("method", "") for record in get_authentication_records(request, user)]
        services.note(
            actor=_person(request, user), user=user, action="session.started", diff={"with": methods}
        )


@receiver(allauth_logged_in)
def tell_of_new_browser(request: HttpRequest, response: HttpResponse, user: User, **_more: Any) -> None:
    """Mail a login with a browser that its person has not used before, and know it from then on."""
    if not browsers.knows(request, user) and not getattr(request, "is_first_login", False):
        notices.tell_of_change(
            user=user,
            to=user.email,
            change="new_browser",
            details={},
            address=client_address(request),
            browser=request.headers.get("User-Agent", ""),
            now=timezone.now(),
        )
    browsers.remember(response, user)


@receiver(user_signed_up)
def welcome(request: HttpRequest, user: User, sociallogin: SocialLogin | None = None, **_more: Any) -> None:
    """Write down a person whom a login provider brought, and give them what a new person begins with."""
    provider = sociallogin.account.provider if sociallogin else ""
    services.welcome(actor=_person(request, user), user=user, provider=provider, now=timezone.now())


@receiver([social_account_added, social_account_removed])
def note_provider(request: HttpRequest, signal: Any, **what: Any) -> None:
    """Write down that a login provider was connected or disconnected."""
    added = signal is social_account_added
    account = what["sociallogin"].account if added else what["socialaccount"]
    action = "user.provider_connected" if added else "user.provider_disconnected"
    diff = {"provider": account.provider}
    services.note(actor=_person(request, account.user), user=account.user, action=action, diff=diff)


@receiver([password_changed, password_set, password_reset])
def note_password(request: HttpRequest, user: User, signal: Any, **_more: Any) -> None:
    """Write down that a password is another one; allauth asks for the mail itself."""
    action = {id(password_changed): "changed", id(password_set): "set", id(password_reset): "reset"}[
        id(signal)
    ]
    services.note(actor=_person(request, user), user=user, action=f"user.password_{action}")


@receiver(email_changed)
def note_email(
    request: HttpRequest,
    user: User,
    from_email_address: EmailAddress | None,
    to_email_address: EmailAddress,
    **_more: Any,
) -> None:
    """Write down another address, and tell the new one; allauth asks for the mail to the old one itself."""
    if from_email_address is None:  # The first address of an account that staff made is confirmed.
        services.note(actor=_person(request, user), user=user, action="user.email_confirmed")
        return
    before = from_email_address.email
    diff = {"email": [before, to_email_address.email]}
    services.note(actor=_person(request, user), user=user, action="user.email_changed", diff=diff)
    notices.tell_of_change(
        user=user,
        to=to_email_address.email,
        change="email_changed",
        details={"from_email": before, "to_email": to_email_address.email},
        address=client_address(request),
        browser=request.headers.get("User-Agent", ""),
        now=timezone.now(),
    )


@receiver([authenticator_added, authenticator_removed, authenticator_reset])
def note_factor(
    request: HttpRequest, user: User, authenticator: Authenticator, signal: Any, **_more: Any
) -> None:
    """Write down that a factor came, went or was renewed."""
    change = {id(authenticator_added): "added", id(authenticator_removed): "removed"}.get(
        id(signal), "renewed"
    )
    services.note(actor=_person(request, user), user=user, action=f"mfa.{authenticator.type}_{change}")


def _person(request: HttpRequest, user: User) -> Actor:
    return Actor(kind=ActorKind.USER, id=user.pk, label=user.email, address=client_address(request))
