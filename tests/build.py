"""Builders: each makes the least valid thing by calling the services, so that fixtures keep every invariant."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone

from apps.core.actor import Actor, system_actor
from apps.core.permissions import Role
from apps.identity import services as identity
from apps.identity.models import User
from apps.organizations import services as organizations
from apps.organizations.models import Organization, Project

NOW = datetime(2026, 5, 15, 12, tzinfo=UTC)
_numbers = itertools.count(1)


def actor(organization: Organization | None = None) -> Actor:
    """Return the actor that builders act as."""
    return system_actor("tests", organization.id if organization else None)


def user(email: str = "", *, now: datetime | None = None, **fields: Any) -> User:
    """Make a person with a verified address."""
    return identity.create_user(
        email=email or f"user-{next(_numbers)}@example.com", now=now or timezone.now(), **fields
    )


def organization(slug: str = "", *, now: datetime | None = None, **fields: Any) -> Organization:
    """Make an organization; fields are those of `create_organization`."""
    slug = slug or f"org-{next(_numbers)}"
    return organizations.create_organization(
        actor=actor(), slug=slug, now=now or timezone.now(), **{"name": slug, **fields}
    )


def member(organization: Organization, role: Role = Role.DEVELOPER, *, user: User | None = None) -> User:
    """Make a person with a role in an organization and return that person."""
    person = user or globals()["user"]()
    organizations.add_member(
        actor=actor(organization), organization=organization, user=person, role=role, now=timezone.now()
    )
    return person


def project(organization: Organization, slug: str = "", **fields: Any) -> Project:
    """Make a project of an organization."""
    slug = slug or f"project-{next(_numbers)}"
    return organizations.create_project(
        actor=actor(organization), organization=organization, slug=slug, now=timezone.now(), **fields
    )
