"""Who a secret proves somebody to be, asked with every request of a machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.core import metrics
from apps.core.actor import Actor
from apps.core.compiled import CompiledQuery
from apps.core.errors import PermissionDenied, Unauthenticated
from apps.credentials import secrets
from apps.credentials.models import ApiKey, Integration

LAST_USED_GRAIN = timedelta(minutes=1)
_EXAMPLE_MOMENT = datetime(9999, 1, 1, tzinfo=UTC)
_INTEGRATION = CompiledQuery(
    lambda public_id: Integration.objects.filter(public_id=public_id), public_id="example"
)
_API_KEY = CompiledQuery(
    lambda public_id, now: (
        ApiKey.objects.with_creator_in_force(now).filter(public_id=public_id).select_related("organization")
    ),
    public_id="example",
    now=_EXAMPLE_MOMENT,
)

AnyCredential = ApiKey | Integration


class TokenInvalid(Unauthenticated):
    """The credential is unknown, revoked, switched off or mistyped."""

    code = "token_invalid"
    default_message = _("This credential does not hold.")


class TokenExpired(Unauthenticated):
    """The credential's time is over."""

    code = "token_expired"
    default_message = _("This credential has expired.")


class AddressNotAllowed(PermissionDenied):
    """The credential may not be used from where the request comes."""

    code = "ip_not_allowed"
    default_message = _("This credential may not be used from this address.")


def authenticate_secret(secret: str, *, address: str, now: datetime) -> tuple[AnyCredential, Actor]:
    """Return the credential that a secret proves, and its actor; TokenInvalid, TokenExpired or AddressNotAllowed.

    A text without a right checksum costs no query. The allow-list is looked at last, so that it tells nothing to
    whoever does not hold the secret.
    """
    credential = find_credential(secret, now)
    if credential is None:
        raise _refused("unknown", TokenInvalid())
    if not credential.holds(secret, now):
        raise _refused("wrong_secret", TokenInvalid())
    if credential.has_expired(now):
        raise _refused("expired", TokenExpired())
    if not credential.works(now):
        raise _refused("revoked_or_inactive", TokenInvalid())
    if isinstance(credential, ApiKey) and not credential.creator_in_force:
        raise _refused("creator_not_in_force", TokenInvalid())
    if not credential.allows(address):
        raise _refused("address_not_allowed", AddressNotAllowed())
    _note_use(credential, address, now)
    return credential, credential.actor(address)


def _refused[E: Exception](reason: str, error: E) -> E:
    return metrics.failed_authentication(metrics.MACHINE, reason, error)


def find_credential(secret: str, now: datetime) -> AnyCredential | None:
    """Return the credential that a secret names, in force or not; `holds` tells whether the secret is its own."""
    parsed = secrets.parse(secret)
    if parsed is None:
        return None
    marker, public_id = parsed
    if marker == Integration.marker:
        return _INTEGRATION.find(public_id=public_id)
    return _API_KEY.find(public_id=public_id, now=now)


def _note_use(credential: AnyCredential, address: str, now: datetime) -> None:
    """Remember the last use, at most once a minute: a busy key must not write a row with every request."""
    if credential.last_used_at is not None and now - credential.last_used_at < LAST_USED_GRAIN:
        return
    rows = type(credential)._default_manager.filter(pk=credential.pk)
    rows.filter(Q(last_used_at__isnull=True) | Q(last_used_at__lte=now - LAST_USED_GRAIN)).update(
        last_used_at=now, last_used_address=address
    )
