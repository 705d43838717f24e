"""The people and keys of a development run: made once, kept in a file, renewed one by one when they stop working."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from apps.core.actor import Actor, ActorKind, system_actor
from apps.core.errors import DomainError, NotFound
from apps.core.permissions import IntegrationScope, Permission, Role
from apps.credentials import services as credentials
from apps.credentials.models import ApiKey
from apps.identity import services as identity
from apps.identity.models import User
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization

STAFF_EMAIL = "staff@example.com"
OWNER_EMAIL = "owner@example.com"
SLUG = "demo"
PLAN = "professional"  # The free one is too small to try things out.
_LOCK = 0x626F6F74  # "boot"


def kept_in() -> Path:
    """Return the file that keeps what `bootstrap` made."""
    return Path(settings.VAR) / "bootstrap.json"


@transaction.atomic
def bootstrap(*, now: datetime) -> dict[str, Any]:
    """Return logins and keys that work; each that the file has and that still works stays as it is."""
    assert settings.DEBUG, "passwords in a file are for development"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    kept = _read()
    staff = _staff(kept.get("staff"), now)
    owner = _owner(kept.get("owner"), now)
    organization = _organization(User.objects.get(email=OWNER_EMAIL), now)
    found = {
        "staff": staff,
        "owner": owner,
        "organization": {"id": str(organization.id), "slug": organization.slug},
        "api_key": _api_key(kept.get("api_key"), organization, now),
        "integration_key": _integration_key(kept.get("integration_key"), now),
    }
    _write(found)
    return found


def _staff(kept: Any, now: datetime) -> dict[str, str]:
    with suppress(KeyError, TypeError):
        email, password, secret = kept["email"], kept["password"], kept["totp_secret"]
        if identity.credentials_work(email, password) and identity.totp_secret_works(email, secret):
            return {"email": email, "password": password, "totp_secret": secret}
    password = _password()
    _user, secret = identity.create_staff(email=STAFF_EMAIL, password=password, now=now)
    return {"email": STAFF_EMAIL, "password": password, "totp_secret": secret}


def _owner(kept: Any, now: datetime) -> dict[str, str]:
    with suppress(KeyError, TypeError):
        if kept["email"] == OWNER_EMAIL and identity.credentials_work(OWNER_EMAIL, kept["password"]):
            return {"email": OWNER_EMAIL, "password": kept["password"]}
    password = _password()
    if User.objects.filter(email=OWNER_EMAIL).exists():
        identity.set_password(email=OWNER_EMAIL, password=password)
    else:
        identity.create_user(email=OWNER_EMAIL, password=password, name="Demo Owner", now=now)
    return {"email": OWNER_EMAIL, "password": password}


def _organization(owner: User, now: datetime) -> Organization:
    actor = system_actor("bootstrap")
    try:
        organization = organizations.resolve_organization(SLUG)
    except NotFound:
        return organizations.create_organization(
            actor=actor, name="Demo", slug=SLUG, owner=owner, plan=PLAN, now=now
        )
    if not Membership.objects.filter(organization=organization, user=owner).exists():
        organizations.add_member(actor=actor, organization=organization, user=owner, role=Role.OWNER, now=now)
    return organization


def _api_key(kept: Any, organization: Organization, now: datetime) -> str:
    with suppress(DomainError):
        credential, _actor = credentials.authenticate_secret(str(kept), address="127.0.0.1", now=now)
        if isinstance(credential, ApiKey) and credential.organization_id == organization.id:
            return str(kept)
    return credentials.create_api_key(
        actor=_acting_owner(organization),
        organization=organization,
        name="bootstrap",
        scopes=list(Permission),
        now=now,
    )[1]


def _acting_owner(organization: Organization) -> Actor:
    """Return the owner as actor, so that the key is theirs like any other."""
    owner = User.objects.get(email=OWNER_EMAIL)
    alone = Actor(kind=ActorKind.USER, id=owner.pk, label=owner.email)
    found = organizations.resolve_for_actor(actor=alone, path=organization.slug, header=None, owner=None)
    assert found is not None, "the path names the organization"
    return found[1]


def _integration_key(kept: Any, now: datetime) -> str:
    with suppress(DomainError):
        _credential, actor = credentials.authenticate_secret(str(kept), address="127.0.0.1", now=now)
        if all(actor.can(scope) for scope in IntegrationScope):
            return str(kept)
    return credentials.create_integration(
        actor=system_actor("bootstrap"), name="bootstrap", scopes=list(IntegrationScope), now=now
    )[1]


def _password() -> str:
    return secrets.token_urlsafe(15)


def _read() -> dict[str, Any]:
    """Return what the file says; a damaged file says nothing, and everything is made anew."""
    try:
        found = json.loads(kept_in().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(found: dict[str, Any]) -> None:
    path = kept_in()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
