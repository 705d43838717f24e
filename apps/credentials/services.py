"""Making, checking, rotating and revoking credentials."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, FieldError, PermissionDenied, Unauthenticated, ValidationFailed
from apps.core.permissions import ROLE_PERMISSIONS, IntegrationScope, Permission, Role
from apps.credentials import secrets
from apps.credentials.models import ApiKey, Credential, Integration
from apps.organizations.models import Membership, Organization, Project
from apps.outbox import services as outbox

LAST_USED_GRAIN = timedelta(minutes=1)
OVERLAP_MAX = timedelta(days=7)
NAME_LENGTH_MAX = 150

AnyCredential = ApiKey | Integration


class TokenInvalid(Unauthenticated):
    """The credential is unknown, revoked, switched off or mistyped."""

    code = "token_invalid"
    default_message = _("This credential does not hold.")


class TokenExpired(Unauthenticated):
    """The credential's time is over."""

    code = "token_expired"
    default_message = _("This credential has expired.")


class KeysExceedMember(Conflict):
    """A key cannot be handed to a member who lacks one of its permissions."""

    code = "keys_exceed_member"
    default_message = _("This member may not do what one of the keys can. Revoke it first.")


class AddressNotAllowed(PermissionDenied):
    """The credential may not be used from where the request comes."""

    code = "ip_not_allowed"
    default_message = _("This credential may not be used from this address.")


@transaction.atomic
def create_api_key(
    *,
    actor: Actor,
    organization: Organization,
    name: str,
    scopes: Collection[str],
    project: Project | None = None,
    expires_at: datetime | None = None,
    allowed_addresses: Sequence[str] = (),
    now: datetime,
) -> tuple[ApiKey, str]:
    """Make a key of an organization and return it with its secret, which is not kept.

    Nobody grants more than they have: a member's key has the member's permissions at most, a key made by a key
    also ends no later than that key.
    """
    _check(name=name, scopes=scopes, known=set(Permission), expires_at=expires_at, now=now)
    networks = parse_networks(allowed_addresses)
    created_by_id, expires_at = _within_own(actor, scopes, expires_at)
    secret = secrets.generate(ApiKey.marker)
    key = ApiKey.objects.create(
        organization=organization,
        project=project,
        created_by_id=created_by_id,
        public_id=secret.public_id,
        digest=secret.digest,
        name=name.strip(),
        scopes=sorted(set(scopes)),
        allowed_addresses=networks,
        expires_at=expires_at,
        created_at=now,
    )
    _tell(actor, "api_key.created", key, scopes=key.scopes, expires_at=expires_at, allowed_addresses=networks)
    return key, secret.text


@transaction.atomic
def create_integration(
    *,
    actor: Actor,
    name: str,
    scopes: Collection[str],
    expires_at: datetime | None = None,
    allowed_addresses: Sequence[str] = (),
    now: datetime,
) -> tuple[Integration, str]:
    """Make a credential for one of the operator's systems and return it with its secret, which is not kept."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "only the operator makes integrations"
    known: set[str] = {*IntegrationScope, *Permission}
    _check(name=name, scopes=scopes, known=known, expires_at=expires_at, now=now)
    networks = parse_networks(allowed_addresses)
    secret = secrets.generate(Integration.marker)
    integration = Integration.objects.create(
        created_by_label=actor.label,
        public_id=secret.public_id,
        digest=secret.digest,
        name=name.strip(),
        scopes=sorted(set(scopes)),
        allowed_addresses=networks,
        expires_at=expires_at,
        created_at=now,
    )
    _tell(
        actor,
        "integration.created",
        integration,
        scopes=integration.scopes,
        expires_at=expires_at,
        allowed_addresses=networks,
    )
    return integration, secret.text


@transaction.atomic
def rotate(
    *, actor: Actor, credential: AnyCredential, overlap: timedelta, now: datetime
) -> tuple[AnyCredential, str]:
    """Give a credential a new secret; the old one works on for the overlap, at most seven days."""
    if not timedelta(0) <= overlap <= OVERLAP_MAX:
        message = str(_("The overlap is between 0 seconds and 7 days."))
        raise ValidationFailed(fields=[FieldError(path="overlap_seconds", code="invalid", message=message)])
    credential = _lock(credential)
    if credential.revoked_at is not None:
        raise TokenInvalid(_("A revoked credential cannot be rotated."))
    secret = secrets.generate(credential.marker, credential.public_id)
    credential.previous_digest, credential.previous_expires_at = credential.digest, now + overlap
    credential.digest = secret.digest
    credential.save(update_fields=["digest", "previous_digest", "previous_expires_at"])
    _tell(actor, f"{_kind(credential)}.rotated", credential, overlap_seconds=int(overlap.total_seconds()))
    return credential, secret.text


@transaction.atomic
def revoke(*, actor: Actor, credential: AnyCredential, reason: str = "", now: datetime) -> AnyCredential:
    """End a credential for good; doing so again changes nothing."""
    credential = _lock(credential)
    if credential.revoked_at is None:
        credential.revoked_at, credential.previous_digest, credential.previous_expires_at = now, None, None
        credential.save(update_fields=["revoked_at", "previous_digest", "previous_expires_at"])
        _tell(actor, f"{_kind(credential)}.revoked", credential, reason=reason)
    return credential


@transaction.atomic
def set_active(*, actor: Actor, credential: AnyCredential, is_active: bool) -> AnyCredential:
    """Switch a credential off, or on again."""
    credential = _lock(credential)
    if credential.is_active != is_active:
        credential.is_active = is_active
        credential.save(update_fields=["is_active"])
        _tell(actor, f"{_kind(credential)}.{'activated' if is_active else 'deactivated'}", credential)
    return credential


@transaction.atomic
def settle_keys_of_leaver(
    *, actor: Actor, membership: Membership, heir: Membership | None, now: datetime
) -> None:
    """Revoke the keys of a member who leaves, or hand them to another; settings.MEMBER_KEYS_SETTLER names this.

    Raises KeysExceedMember if the heir may not do what one of the keys can.
    """
    keys = ApiKey.objects.filter(
        organization_id=membership.organization_id, created_by_id=membership.user_id, revoked_at__isnull=True
    )
    for key in keys.order_by("pk"):
        if heir is None:
            revoke(actor=actor, credential=key, reason=str(_("The member left.")), now=now)
            continue
        beyond = sorted(set(key.scopes) - ROLE_PERMISSIONS[Role(heir.role)])
        if beyond:
            raise KeysExceedMember(api_key=str(key.id), permissions=beyond)
        key.created_by_id = heir.user_id
        key.save(update_fields=["created_by"])
        _tell(actor, "api_key.handed_over", key, created_by=[membership.user_id, heir.user_id])


def authenticate_secret(secret: str, *, address: str, now: datetime) -> tuple[AnyCredential, Actor]:
    """Return the credential that a secret proves, and its actor; TokenInvalid, TokenExpired or AddressNotAllowed.

    A text without a right checksum costs no query. The allow-list is looked at last, so that it tells nothing to
    whoever does not hold the secret.
    """
    credential = _find(secret, now)
    if credential is None or not credential.holds(secret, now):
        raise TokenInvalid
    if credential.has_expired(now):
        raise TokenExpired
    if not credential.works(now) or not getattr(credential, "creator_in_force", True):
        raise TokenInvalid
    if not credential.allows(address):
        raise AddressNotAllowed
    _note_use(credential, address, now)
    return credential, credential.actor(address)


def _find(secret: str, now: datetime) -> AnyCredential | None:
    parsed = secrets.parse(secret)
    if parsed is None:
        return None
    marker, public_id = parsed
    if marker == Integration.marker:
        return Integration.objects.filter(public_id=public_id).first()
    keys = ApiKey.objects.with_creator_in_force(now).select_related("organization", "project")
    return keys.filter(public_id=public_id).first()


def _note_use(credential: AnyCredential, address: str, now: datetime) -> None:
    """Remember the last use, at most once a minute: a busy key must not write a row with every request."""
    if credential.last_used_at is not None and now - credential.last_used_at < LAST_USED_GRAIN:
        return
    rows = type(credential)._default_manager.filter(pk=credential.pk)
    rows.filter(Q(last_used_at__isnull=True) | Q(last_used_at__lte=now - LAST_USED_GRAIN)).update(
        last_used_at=now, last_used_address=address
    )


def _within_own(
    actor: Actor, scopes: Collection[str], expires_at: datetime | None
) -> tuple[UUID | None, datetime | None]:
    """Return the person behind a new key and its end, or refuse scopes that the actor does not have."""
    if actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}:
        return None, expires_at
    if beyond := sorted(str(scope) for scope in scopes if not actor.can(scope)):
        raise PermissionDenied(_("A key cannot have permissions that you do not have."), permissions=beyond)
    if actor.kind == ActorKind.USER:
        return actor.id, expires_at
    assert actor.credential_id is not None, "a key is its own credential"
    own = ApiKey.objects.get(pk=actor.credential_id)
    ends = [moment for moment in (own.expires_at, expires_at) if moment is not None]
    return own.created_by_id, min(ends, default=None)


def _check(
    *, name: str, scopes: Collection[str], known: set[str], expires_at: datetime | None, now: datetime
) -> None:
    problems: list[tuple[str, str | Promise]] = []
    if not name.strip() or len(name) > NAME_LENGTH_MAX:
        problems.append(("name", _("A name has 1 to 150 characters.")))
    if not scopes:
        problems.append(("scopes", _("A credential needs at least one scope.")))
    if unknown := sorted(str(scope) for scope in scopes if scope not in known):
        problems.append(("scopes", _("Unknown scopes: %(names)s.") % {"names": ", ".join(unknown)}))
    if expires_at is not None and expires_at <= now:
        problems.append(("expires_at", _("The end must lie in the future.")))
    if problems:
        raise ValidationFailed(
            fields=[FieldError(path=path, code="invalid", message=str(message)) for path, message in problems]
        )


def parse_networks(addresses: Sequence[str]) -> list[str]:
    """Return addresses and networks in their one spelling."""
    networks, wrong = [], []
    for index, text in enumerate(addresses):
        try:
            networks.append(str(ipaddress.ip_network(text.strip(), strict=False)))
        except ValueError:
            message = str(_("This is no address or network, such as 203.0.113.0/24."))
            wrong.append(FieldError(path=f"allowed_ips.{index}", code="invalid", message=message))
    if wrong:
        raise ValidationFailed(fields=wrong)
    return sorted(set(networks))


def _lock(credential: AnyCredential) -> AnyCredential:
    rows = type(credential)._default_manager.select_for_update(no_key=True, of=("self",))
    return cast("AnyCredential", rows.get(pk=credential.pk))


def _kind(credential: Credential) -> str:
    return "integration" if isinstance(credential, Integration) else "api_key"


def _tell(actor: Actor, action: str, credential: AnyCredential, *, reason: str = "", **facts: object) -> None:
    organization_id = credential.organization_id if isinstance(credential, ApiKey) else None
    audit.record(
        actor=actor,
        action=action,
        target=credential,
        diff=facts,
        reason=reason,
        organization_id=organization_id,
    )
    outbox.publish(
        f"credentials.{action.replace('.', '_')}",
        {"id": credential.id, "public_id": credential.public_id, "name": credential.name},
        organization_id=organization_id,
    )
