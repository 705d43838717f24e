"""Keys as a page shows them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.states import State
from apps.credentials.models import ApiKey

EXPIRES_SOON = timedelta(days=7)


def keys_of(actor: Actor, *, now: datetime) -> list[tuple[ApiKey, State]]:
    """Return the keys of the actor's organization with their states, newest first, revoked ones last."""
    keys = ApiKey.objects.visible_to(actor).with_creator_in_force(now)
    newest_first = keys.select_related("project", "created_by").order_by("-created_at", "-pk")
    found = sorted(newest_first, key=lambda key: key.revoked_at is not None)
    return [(key, state_of(key, now=now)) for key in found]


def state_of(key: ApiKey, *, now: datetime) -> State:
    """Return how a key stands; it comes from `with_creator_in_force`."""
    if key.revoked_at is not None:
        return State(word=_("revoked"), tone="danger")
    if key.has_expired(now):
        return State(word=_("expired"))
    if not key.is_active:
        return State(word=_("off"))
    if not getattr(key, "creator_in_force", True):
        return State(word=_("blocked with its maker"), tone="danger")
    if key.expires_at is not None and key.expires_at - now < EXPIRES_SOON:
        return State(word=_("expires soon"), tone="caution")
    return State(word=_("works"), tone="ok")
