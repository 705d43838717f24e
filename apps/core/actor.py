"""Who acts: every service takes an Actor, every audit row names one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class ActorKind(StrEnum):
    """What stands behind an action."""

    USER = "user"
    API_KEY = "api_key"
    INTEGRATION = "integration"
    STAFF = "staff"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A principal acting inside at most one organization with a fixed set of permissions.

    organization_id: None for integrations, staff and the system until a path, header or event names one.
    permissions: names of `Permission` and `IntegrationScope`; a system actor needs none, services trust it.
    on_behalf_of: the person that a staff member or key acts for, as shown in the audit log.
    stepped_up_at: when a person last proved themselves with a second factor, or the password where none exists.
    """

    kind: ActorKind
    id: UUID | None
    label: str
    permissions: frozenset[str] = frozenset()
    organization_id: UUID | None = None
    credential_id: UUID | None = None
    address: str = ""
    on_behalf_of: str = ""
    stepped_up_at: datetime | None = None

    @property
    def person_id(self) -> UUID:
        """The id of the person that this actor is; asking it of anything else is a bug."""
        assert self.kind == ActorKind.USER, "only people have this id"
        assert self.id is not None, "people are never anonymous here"
        return self.id

    def can(self, permission: str) -> bool:
        """Return whether this actor holds the permission or scope of that name."""
        return permission in self.permissions

    def within(self, organization_id: UUID) -> Actor:
        """Return this actor acting inside one organization."""
        return replace(self, organization_id=organization_id)


def system_actor(label: str, organization_id: UUID | None = None) -> Actor:
    """Return the actor for what the platform does by itself; the label names the process, such as `metering`."""
    return Actor(kind=ActorKind.SYSTEM, id=None, label=label, organization_id=organization_id)
