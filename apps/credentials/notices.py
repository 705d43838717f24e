"""Mails that say what became of a credential, to whoever answers for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor, ActorKind
from apps.core.ids import uuid7
from apps.core.permissions import Permission
from apps.credentials.models import ApiKey, Integration
from apps.identity.models import User
from apps.notifications import services as notifications
from apps.organizations import selectors as organizations

# What is in braces comes with the credential.
CHANGES = {
    "created": _("The API key {name} was made."),
    "rotated": _("The API key {name} has a new secret."),
    "revoked": _("The API key {name} was revoked."),
    "leaked": _("The secret of the API key {name} was found in public."),
    "handed_over": _("The API key {name} was handed over to you."),
}
ADVICE = {
    "leaked": _(
        "We revoked it, so whatever used it is refused. Make a new one, and remove the old one from where it was found."
    ),
    "revoked": _("Whatever used it is refused from now on."),
}
LISTED_MAX = 50
DEFAULT_ADVICE = _("If you do not know of this, revoke it now.")


def tell_of_change(*, actor: Actor, credential: ApiKey | Integration, change: str, now: datetime) -> None:
    """Mail what became of a credential to the person behind it, else to the owners, or of an integration to staff.

    change: a name in `CHANGES`. A leak is told to the owners as well. What the operator's own commands do is not news.
    """
    if actor.kind == ActorKind.SYSTEM and change != "leaked":
        return
    organization = credential.organization if isinstance(credential, ApiKey) else None
    notifications.queue_mail(
        template="credentials/mail/changed",
        to=_recipients(credential, change, now),
        context={
            "change": str(CHANGES[change]).format(name=credential.name),
            "advice": str(ADVICE.get(change, DEFAULT_ADVICE)),
            "organization": organization.name if organization else "",
            "masked": credential.masked,
            "by": actor.label,
            "address": actor.address,
            "at": now.isoformat(),
            "link": f"{settings.PUBLIC_URL}{_path_of(credential)}",
        },
        organization_id=organization.id if organization else None,
        # Each change is news: a key that is rotated twice is told twice.
        cause=f"credentials.key_{change}:{uuid7()}",
        now=now,
    )


def tell_of_leaver(*, actor: Actor, leaver: User, keys: Sequence[ApiKey], now: datetime) -> None:
    """Mail which keys ended with a member, once, to who made them and to the owners, whose programs may stop."""
    if actor.kind == ActorKind.SYSTEM or not keys:
        return
    organization = keys[0].organization
    owners = organizations.emails_with(organization.pk, Permission.ORGANIZATION_TRANSFER, now=now)
    notifications.queue_mail(
        template="credentials/mail/revoked_with_member",
        to=[*([leaver.email] if leaver.is_active else []), *owners],
        context={
            "organization": organization.name,
            "leaver": leaver.get_full_name(),
            "count": len(keys),
            "keys": [f"{key.name} ({key.masked})" for key in keys[:LISTED_MAX]],
            "more": max(len(keys) - LISTED_MAX, 0),
            "by": actor.label,
            "address": actor.address,
            "at": now.isoformat(),
            "link": f"{settings.PUBLIC_URL}{reverse('keys', args=[organization.slug])}?revoked=1",
        },
        organization_id=organization.pk,
        cause=f"credentials.keys_ended:{uuid7()}",
        now=now,
    )


def _recipients(credential: ApiKey | Integration, change: str, now: datetime) -> list[str]:
    if isinstance(credential, Integration):
        staff = ModelBackend().with_perm("credentials.change_integration", is_active=True)
        return sorted(staff.filter(is_staff=True).values_list("email", flat=True))
    maker = credential.created_by
    own = [maker.email] if maker is not None and maker.is_active else []
    if own and change != "leaked":
        return own
    owners = Permission.ORGANIZATION_TRANSFER  # Nobody else has it.
    return own + organizations.emails_with(credential.organization_id, owners, now=now)


def _path_of(credential: ApiKey | Integration) -> str:
    if isinstance(credential, ApiKey):
        return reverse("key", args=[credential.organization.slug, credential.pk])
    return reverse("admin:credentials_integration_change", args=[credential.pk])
