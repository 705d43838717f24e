"""What a credential brings along about the organization of its request, so that it need not be read again."""

from __future__ import annotations

from dataclasses import dataclass

from apps.organizations.models import Membership, Organization


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An organization and, of a person, the membership there with its user, both read in this very request."""

    organization: Organization
    membership: Membership | None = None

    def is_named(self, name: str) -> bool:
        """Return whether this is the organization of that id or present slug."""
        return name in {self.organization.slug, str(self.organization.pk)}
