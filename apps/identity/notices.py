"""Mails that say what was changed about an account, to whoever must hear of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7
from apps.identity.browsers import browser_name
from apps.identity.models import User
from apps.notifications import services as notifications

# By allauth's name of the notice, and what only we tell; what is in braces comes with it.
CHANGES = {
    "password_changed": _("Your password was changed."),
    "password_reset": _("Your password was reset."),
    "password_set": _("A password was set."),
    "email_changed": _("Your e-mail address was changed from {from_email} to {to_email}."),
    "email_confirm": _("An e-mail address was confirmed."),
    "email_deleted": _("The e-mail address {deleted_email} was removed."),
    "totp_activated": _("An authenticator app was added."),
    "totp_deactivated": _("The authenticator app was removed."),
    "recovery_codes_generated": _("New recovery codes were made; the earlier ones no longer work."),
    "recovery_code_used": _("A recovery code was used instead of your second factor."),
    "webauthn_added": _("A passkey was added."),
    "webauthn_removed": _("A passkey was removed."),
    "new_browser": _("Somebody logged in to your account from a new browser."),
    "new_program": _("Somebody logged in to your account from a new program."),
    "account_connected": _("A login with another provider was connected."),
    "account_disconnected": _("A login with another provider was disconnected."),
}


def tell_of_change(
    *,
    user: User,
    to: str,
    change: str,
    details: Mapping[str, Any],
    address: str,
    browser: str,
    now: datetime,
) -> None:
    """Mail what was changed about an account, from where and how to answer if it was somebody else.

    change: a name in `CHANGES`. details: what its sentence has in braces.
    """
    sentence = str(CHANGES[change])
    notifications.queue_mail(
        template="identity/mail/change",
        to=[to],
        context={
            "change": sentence.format(**{name: str(value) for name, value in details.items()}),
            "address": address,
            "browser": browser_name(browser),
            "at": now.isoformat(),
            "link": f"{settings.PUBLIC_URL}{reverse('account_change_password')}",
        },
        user_id=user.pk,
        # Each change is news: whoever changes a password twice is told twice.
        cause=f"identity.change:{uuid7()}",
        now=now,
    )
