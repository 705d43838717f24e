"""Making, changing, rotating and revoking credentials."""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from django.db import connection, transaction
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core.actor import Actor, ActorKind, system_actor
from apps.core.errors import Conflict, FieldError, PermissionDenied, ValidationFailed
from apps.core.permissions import ROLE_PERMISSIONS, IntegrationScope, Permission, Role
from apps.credentials import notices, secrets
from apps.credentials.models import ApiKey, Credential, Integration
from apps.credentials.services.proving import AnyCredential, find_credential
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization, Project
from apps.outbox import services as outbox

OVERLAP_MAX = timedelta(days=7)
NAME_LENGTH_MAX = 150
_LOCK = 0x696E7467  # "intg"


class CredentialRevoked(Conflict):
    """A revoked credential stays revoked; make a new one."""

    code = "credential_revoked"
    default_message = _("A revoked credential cannot be changed. Make a new one.")


class SecretShown(Conflict):
    """The form was sent before, and its answer showed the secret; nothing was made or rotated again."""

    code = "secret_shown"
    default_message = _(
        "The secret was shown once, so it is not shown again. If you do not have it, rotate the key."
    )


class KeysExceedMember(Conflict):
    """A key cannot be handed to a member who lacks one of its permissions."""

    code = "keys_exceed_member"
    default_message = _("This member may not do what one of the keys can. Revoke it first.")


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
    attempt_id: UUID | None = None,
    now: datetime,
) -> tuple[ApiKey, str]:
    """Make a key of an organization and return it with its secret, which is not kept.

    Nobody grants more than they have: a member's key has the member's permissions at most; a key made by a key also
    ends no later, and stays within its project and addresses. The plan limits how many keys there are.
    attempt_id: of the form that asks for it, which takes effect once; SecretShown afterwards.
    """
    _check(name=name, scopes=scopes, known=set(Permission), expires_at=expires_at, now=now)
    reach = _within_own(actor, scopes, expires_at, project, parse_networks(allowed_addresses))
    # Whoever makes keys waits here, so that they are counted and a form that is sent twice finds its key.
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if attempt_id is not None:
        made = ApiKey.objects.filter(organization=organization, attempts__contains=[attempt_id]).first()
        if made is not None:
            raise SecretShown(api_key=str(made.id))
    kept = ApiKey.objects.kept(now).filter(organization=organization).count()
    organizations.check_quota(
        actor=actor, organization_id=organization.id, quota="api_keys", using=kept + 1, now=now
    )
    secret = secrets.generate(ApiKey.marker)
    key = ApiKey.objects.create(
        organization=organization,
        project=reach.project,
        created_by_id=reach.created_by_id,
        public_id=secret.public_id,
        digest=secret.digest,
        name=name.strip(),
        scopes=sorted(set(scopes)),
        allowed_addresses=reach.networks,
        expires_at=reach.expires_at,
        created_at=now,
        attempts=[] if attempt_id is None else [attempt_id],
    )
    _tell(
        actor,
        "api_key.created",
        key,
        scopes=key.scopes,
        expires_at=key.expires_at,
        allowed_addresses=key.allowed_addresses,
    )
    notices.tell_of_change(actor=actor, credential=key, change="created", now=now)
    return key, secret.text


@transaction.atomic
def create_integration(
    *,
    actor: Actor,
    name: str,
    scopes: Collection[str],
    expires_at: datetime | None = None,
    allowed_addresses: Sequence[str] = (),
    attempt_id: UUID | None = None,
    now: datetime,
) -> tuple[Integration, str]:
    """Make a credential for one of the operator's systems and return it with its secret, which is not kept.

    attempt_id: of the form that asks for it, which takes effect once; SecretShown afterwards.
    """
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "only the operator makes integrations"
    known: set[str] = {*IntegrationScope, *Permission}
    _check(name=name, scopes=scopes, known=known, expires_at=expires_at, now=now)
    networks = parse_networks(allowed_addresses)
    if attempt_id is not None:
        with connection.cursor() as cursor:  # A form that is sent twice at once waits for itself here.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if made := Integration.objects.filter(attempts__contains=[attempt_id]).first():
            message = _("The secret was shown once. If you do not have it, revoke this one and make another.")
            raise SecretShown(message, integration=str(made.id))
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
        attempts=[] if attempt_id is None else [attempt_id],
    )
    _tell(
        actor,
        "integration.created",
        integration,
        scopes=integration.scopes,
        expires_at=expires_at,
        allowed_addresses=networks,
    )
    notices.tell_of_change(actor=actor, credential=integration, change="created", now=now)
    return integration, secret.text


@transaction.atomic
def rotate(
    *,
    actor: Actor,
    credential: AnyCredential,
    overlap: timedelta,
    attempt_id: UUID | None = None,
    now: datetime,
) -> tuple[AnyCredential, str]:
    """Give a credential a new secret; the old one works on for the overlap, at most seven days.

    attempt_id: of the form that asks for it, which takes effect once; SecretShown afterwards.
    """
    if not timedelta(0) <= overlap <= OVERLAP_MAX:
        message = str(_("The overlap is between 0 seconds and 7 days."))
        raise ValidationFailed(fields=[FieldError(path="overlap_seconds", code="invalid", message=message)])
    credential = _lock(credential)
    _check_reach(actor, credential)
    if attempt_id in credential.attempts:
        raise SecretShown(api_key=str(credential.id))
    if credential.revoked_at is not None:
        raise CredentialRevoked
    secret = secrets.generate(credential.marker, credential.public_id)
    credential.previous_digest, credential.previous_expires_at = credential.digest, now + overlap
    credential.digest = secret.digest
    if attempt_id is not None:
        credential.attempts = [*credential.attempts, attempt_id]
    credential.save(update_fields=["digest", "previous_digest", "previous_expires_at", "attempts"])
    _tell(actor, f"{_kind(credential)}.rotated", credential, overlap_seconds=int(overlap.total_seconds()))
    notices.tell_of_change(actor=actor, credential=credential, change="rotated", now=now)
    return credential, secret.text


@transaction.atomic
def revoke(*, actor: Actor, credential: AnyCredential, reason: str = "", now: datetime) -> AnyCredential:
    """End a credential for good; doing so again changes nothing."""
    credential = _lock(credential)
    _check_reach(actor, credential)
    if credential.revoked_at is None:
        _end(actor, credential, reason=reason, now=now)
        notices.tell_of_change(actor=actor, credential=credential, change="revoked", now=now)
    return credential


@transaction.atomic
def change(
    *, actor: Actor, credential: AnyCredential, name: str | None = None, is_active: bool | None = None
) -> AnyCredential:
    """Rename a credential, switch it off, or on again."""
    if name is not None and (problem := _wrong_name(name)):
        raise ValidationFailed(fields=[FieldError(path="name", code="invalid", message=str(problem))])
    credential = _lock(credential)
    _check_reach(actor, credential)
    if name is not None and name.strip() != credential.name:
        before, credential.name = credential.name, name.strip()
        credential.save(update_fields=["name"])
        _tell(actor, f"{_kind(credential)}.renamed", credential, renamed=[before, credential.name])
    if is_active is not None and credential.is_active != is_active:
        credential.is_active = is_active
        credential.save(update_fields=["is_active"])
        _tell(actor, f"{_kind(credential)}.{'activated' if is_active else 'deactivated'}", credential)
    return credential


def report_leaks(*, tokens: Sequence[str], address: str, now: datetime) -> None:
    """Revoke every credential whose whole secret somebody has found, and tell its owners; the rest is ignored.

    Says nothing of what held: whoever asks learns no more than they brought.
    """
    actor = replace(system_actor("leak report"), address=address)
    for token in dict.fromkeys(tokens):
        credential = find_credential(token.strip(), now)
        if (
            credential is None
            or not credential.holds(token.strip(), now)
            or credential.revoked_at is not None
        ):
            continue
        with transaction.atomic():
            _tell(actor, f"{_kind(credential)}.leaked", credential)
            notices.tell_of_change(actor=actor, credential=credential, change="leaked", now=now)
            revoke(actor=actor, credential=credential, reason=str(_("Reported as leaked.")), now=now)


@transaction.atomic
def settle_keys_of_leaver(
    *, actor: Actor, membership: Membership, heir: Membership | None, now: datetime
) -> None:
    """Revoke the keys of a member who leaves, or hand them to another, and tell whom that concerns.

    settings.MEMBER_KEYS_SETTLER names this. Raises KeysExceedMember if the heir may not do what one of the keys can.
    """
    keys = ApiKey.objects.made_by(membership).select_related("organization")
    if heir is None:
        ended = list(keys.order_by("pk"))
        for key in ended:
            _end(actor, key, reason=str(_("The member left.")), now=now)
        notices.tell_of_leaver(actor=actor, leaver=membership.user, keys=ended, now=now)
        return
    for key in keys.order_by("pk"):
        beyond = sorted(set(key.scopes) - ROLE_PERMISSIONS[Role(heir.role)])
        if beyond:
            raise KeysExceedMember(api_key=str(key.id), permissions=beyond)
        key.created_by = heir.user
        key.save(update_fields=["created_by"])
        _tell(actor, "api_key.handed_over", key, created_by=[membership.user_id, heir.user_id])
        notices.tell_of_change(actor=actor, credential=key, change="handed_over", now=now)


def _check_reach(actor: Actor, credential: AnyCredential) -> None:
    """Raise PermissionDenied if a credential can do more, or lasts longer, than the actor who handles it."""
    if actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}:
        return
    if beyond := sorted(str(scope) for scope in credential.scopes if not actor.can(scope)):
        raise PermissionDenied(_("This key has permissions that you do not have."), permissions=beyond)
    if actor.kind != ActorKind.API_KEY or actor.credential_id == credential.pk:
        return
    own = _own_key(actor)
    if own.expires_at is not None and (
        credential.expires_at is None or credential.expires_at > own.expires_at
    ):
        raise PermissionDenied(_("This key lasts longer than yours."))
    if own.project_id is not None and own.project_id != getattr(credential, "project_id", None):
        raise PermissionDenied(_("This key is not of your project."))
    if own.allowed_addresses and not _is_inside(credential.allowed_addresses, own.allowed_addresses):
        raise PermissionDenied(_("This key may be used from more addresses than yours."))


def _own_key(actor: Actor) -> ApiKey:
    assert actor.credential_id is not None, "a key is its own credential"
    return ApiKey.objects.select_related("project").get(pk=actor.credential_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """How far a new key goes, and the person behind it."""

    created_by_id: UUID | None
    expires_at: datetime | None
    project: Project | None
    networks: list[str]


def _within_own(
    actor: Actor,
    scopes: Collection[str],
    expires_at: datetime | None,
    project: Project | None,
    networks: list[str],
) -> _Reach:
    """Return how far a new key goes, or refuse what the actor does not have.

    What a key leaves open for its offspring, it hands down: its end, its project, its addresses.
    """
    if actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}:
        return _Reach(created_by_id=None, expires_at=expires_at, project=project, networks=networks)
    if beyond := sorted(str(scope) for scope in scopes if not actor.can(scope)):
        raise PermissionDenied(_("A key cannot have permissions that you do not have."), permissions=beyond)
    if actor.kind == ActorKind.USER:
        return _Reach(created_by_id=actor.id, expires_at=expires_at, project=project, networks=networks)
    if actor.kind == ActorKind.INTEGRATION:
        return _Reach(created_by_id=None, expires_at=expires_at, project=project, networks=networks)
    own = _own_key(actor)
    if own.project is not None and project not in (None, own.project):
        raise PermissionDenied(_("A key of a project makes keys of that project only."))
    if own.allowed_addresses and networks and not _is_inside(networks, own.allowed_addresses):
        raise PermissionDenied(_("A key cannot be used from more addresses than the one that makes it."))
    ends = [moment for moment in (own.expires_at, expires_at) if moment is not None]
    return _Reach(
        created_by_id=own.created_by_id,
        expires_at=min(ends, default=None),
        project=project or own.project,
        networks=networks or own.allowed_addresses,
    )


def _is_inside(networks: Sequence[str], outer: Sequence[str]) -> bool:
    """Return whether every network lies within one of the outer ones; an empty list is every address."""
    around = [ipaddress.ip_network(text) for text in outer]
    inner = [ipaddress.ip_network(text) for text in networks]
    return bool(inner) and all(
        any(
            network.version == wide.version
            and wide.network_address <= network.network_address  # type: ignore[operator]  # Of one version.
            and network.broadcast_address <= wide.broadcast_address  # type: ignore[operator]  # As above.
            for wide in around
        )
        for network in inner
    )


def _check(
    *, name: str, scopes: Collection[str], known: set[str], expires_at: datetime | None, now: datetime
) -> None:
    problems: list[tuple[str, str | Promise]] = []
    if problem := _wrong_name(name):
        problems.append(("name", problem))
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


def _wrong_name(name: str) -> str | Promise | None:
    if not name.strip() or len(name) > NAME_LENGTH_MAX:
        return _("A name has 1 to 150 characters.")
    if any(unicodedata.category(character).startswith("C") for character in name):
        return _("A name has no control characters.")
    return None


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


def _end(actor: Actor, credential: AnyCredential, *, reason: str, now: datetime) -> None:
    credential.revoked_at, credential.previous_digest, credential.previous_expires_at = now, None, None
    credential.save(update_fields=["revoked_at", "previous_digest", "previous_expires_at"])
    _tell(actor, f"{_kind(credential)}.revoked", credential, reason=reason)


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
