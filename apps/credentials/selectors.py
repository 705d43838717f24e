"""Keys as a page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db.models import Value
from django.db.models.functions import Coalesce, Lower
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.states import State
from apps.credentials.models import ApiKey, ApiKeyQuerySet, TokenFamily
from apps.identity.browsers import browser_name
from apps.organizations.models import Membership

# The columns by which a list of keys is sorted, and the annotation of `keys_of` behind each.
KEYS_BY = {"name": "sorted_name", "project": "sorted_project", "expires": "sorted_end", "used": "sorted_use"}
EXPIRES_SOON = timedelta(days=7)
REFRESH_IDLE_MAX = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRow:
    """One login over REST as its person may recognize it."""

    id: UUID
    name: str
    address: str
    began_at: datetime
    last_used_at: datetime


def programs_of(user_id: UUID, *, now: datetime) -> list[ProgramRow]:
    """Return the logins of a person over REST that can still be used, the newest first."""
    rows = TokenFamily.objects.filter(
        user_id=user_id,
        revoked_at__isnull=True,
        expires_at__gt=now,
        last_used_at__gt=now - REFRESH_IDLE_MAX,
    )
    return [
        ProgramRow(
            id=row.pk,
            name=browser_name(row.user_agent),
            address=row.address,
            began_at=row.created_at,
            last_used_at=row.last_used_at,
        )
        for row in rows.select_related("user").order_by("-created_at", "-pk")
        if row.knows_password()
    ]


def has_keys(*, membership: Membership, now: datetime) -> bool:
    """Return whether a member has keys that are neither revoked nor expired; settings.MEMBER_HAS_KEYS names this."""
    return ApiKey.objects.made_by(membership).kept(now).exists()


def keys_of(actor: Actor, *, now: datetime) -> ApiKeyQuerySet:
    """Return the keys of the actor's organization with what their states and `KEYS_BY` read.

    What never ends sorts after what does, what was never used before what was.
    """
    keys = ApiKey.objects.visible_to(actor).with_creator_in_force(now)
    return keys.select_related("project", "created_by").annotate(
        sorted_name=Lower("name"),
        sorted_project=Coalesce("project__slug", Value("")),
        sorted_end=Coalesce("expires_at", Value(datetime.max.replace(tzinfo=UTC))),
        sorted_use=Coalesce("last_used_at", Value(datetime.min.replace(tzinfo=UTC))),
    )


def state_of(key: ApiKey, *, now: datetime) -> State:
    """Return how a key stands; it comes from `with_creator_in_force`."""
    if key.revoked_at is not None:
        return State(word=_("revoked"), tone="danger")
    if key.has_expired(now):
        return State(word=_("expired"))
    if not key.is_active:
        return State(word=_("off"))
    if not key.creator_in_force:
        return State(word=_("blocked with its maker"), tone="danger")
    if key.expires_at is not None and key.expires_at - now < EXPIRES_SOON:
        return State(word=_("expires soon"), tone="caution")
    return State(word=_("works"), tone="ok")
