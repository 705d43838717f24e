"""Passwords: the link that sets a new one."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from allauth.account.forms import default_token_generator
from allauth.account.models import EmailAddress
from allauth.account.utils import user_pk_to_url_str
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.urls import reverse

from apps.core import jobs
from apps.core.http.address import limiting_address
from apps.identity.models import PasswordReset, User
from apps.identity.services.signup import MAILS_PER_HOUR_MAX
from apps.limits import services as limits
from apps.notifications import services as notifications

LASTS = timedelta(hours=24)
_LOST_AFTER = timedelta(minutes=1)


def request_password_reset(*, email: str, address: str = "", now: datetime) -> None:
    """Note that somebody wants a new password at an address; the same whether it has an account or not.

    Call it outside any transaction. Raises TooManyGuesses.
    """
    email = email.strip().lower()
    limits.guard(limits.RESET, email, limiting_address(address))
    limits.guard(limits.MAILS, limiting_address(address))
    with transaction.atomic():
        wish = PasswordReset.objects.create(email=email, created_at=now)
        jobs.enqueue("identity.mail_password_reset", reset_id=wish.id)


def mail_password_reset(*, reset_id: UUID, now: datetime) -> None:
    """Mail the link to the address if it is the verified one of an active account; otherwise nothing."""
    wish = PasswordReset.objects.filter(
        pk=reset_id, mailed_at__isnull=True, created_at__gt=now - LASTS
    ).first()
    if wish is None:
        return
    lately = PasswordReset.objects.filter(email=wish.email, mailed_at__gt=now - timedelta(hours=1))
    # The account's own address and nothing else: an added one that nobody proved must not open the account.
    address = (
        EmailAddress.objects.filter(
            email=wish.email, user__email=F("email"), verified=True, user__is_active=True
        )
        .select_related("user")
        .first()
    )
    if address is not None and lately.count() < MAILS_PER_HOUR_MAX:
        notifications.deliver_mail(
            template="identity/mail/password_reset",
            to=[address.user.email],
            context={"email": address.user.email, "link": _link(address.user)},
        )
    PasswordReset.objects.filter(pk=wish.pk).update(mailed_at=now)


def unmailed_resets(*, now: datetime) -> list[UUID]:
    """Return the wishes whose mail a crash may have lost."""
    lost = PasswordReset.objects.filter(
        mailed_at__isnull=True, created_at__lt=now - _LOST_AFTER, created_at__gt=now - LASTS
    )
    return list(lost.order_by("pk").values_list("pk", flat=True)[:100])


def _link(user: User) -> str:
    key = f"{user_pk_to_url_str(user)}-{default_token_generator.make_token(user)}"
    # allauth's pattern joins the two parts by a hyphen.
    path = reverse("account_reset_password_from_key", kwargs={"uidb36": "UID", "key": "KEY"})
    return f"{settings.PUBLIC_URL}{path.replace('UID-KEY', key)}"
