"""The catalogue of permissions, the scopes of integrations, and the roles as sets of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType

from django.db import models
from django.utils.translation import gettext_lazy as _


class Permission(StrEnum):
    """What a member or an API key may do inside one organization; scopes have the same names."""

    ORGANIZATION_READ = "organization.read"
    ORGANIZATION_UPDATE = "organization.update"
    ORGANIZATION_DELETE = "organization.delete"
    ORGANIZATION_TRANSFER = "organization.transfer"
    MEMBERS_READ = "members.read"
    MEMBERS_INVITE = "members.invite"
    MEMBERS_MANAGE = "members.manage"
    PROJECTS_READ = "projects.read"
    PROJECTS_MANAGE = "projects.manage"
    API_KEYS_READ = "api_keys.read"
    API_KEYS_CREATE = "api_keys.create"
    API_KEYS_MANAGE = "api_keys.manage"
    USAGE_READ = "usage.read"
    BILLING_READ = "billing.read"
    BILLING_TOP_UP = "billing.top_up"
    BILLING_MANAGE = "billing.manage"
    BUDGETS_MANAGE = "budgets.manage"
    QUOTAS_READ = "quotas.read"
    QUOTAS_REQUEST = "quotas.request"
    AUDIT_READ = "audit.read"


class IntegrationScope(StrEnum):
    """What only an operator-owned integration may do, in any organization."""

    USAGE_WRITE = "usage:write"
    USAGE_BACKFILL = "usage:backfill"
    ENTITLEMENTS_CHECK = "entitlements:check"
    HOLDS_WRITE = "holds:write"
    PRICING_MANAGE = "pricing:manage"
    METRICS_READ = "metrics:read"


class Role(models.TextChoices):
    """The roles of a member, most powerful first."""

    OWNER = "owner", _("Owner")
    ADMIN = "admin", _("Admin")
    BILLING = "billing", _("Billing")
    DEVELOPER = "developer", _("Developer")
    VIEWER = "viewer", _("Viewer")


_EVERY = frozenset(Permission)
_EVERY_READ = frozenset(permission for permission in Permission if permission.endswith(".read"))


def _all_of(*resources: str) -> frozenset[Permission]:
    return frozenset(permission for permission in Permission if permission.split(".")[0] in resources)


ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.OWNER: _EVERY,
        Role.ADMIN: _EVERY - {Permission.ORGANIZATION_DELETE, Permission.ORGANIZATION_TRANSFER},
        Role.BILLING: _all_of("billing") | {Permission.BUDGETS_MANAGE} | _EVERY_READ,
        Role.DEVELOPER: _all_of("projects", "api_keys", "quotas")
        | {Permission.USAGE_READ, Permission.BILLING_READ},
        Role.VIEWER: _EVERY_READ - {Permission.AUDIT_READ},
    }
)


def roles_with(permissions: Collection[str]) -> list[Role]:
    """Return the roles that hold at least one of the permissions, the mightiest first."""
    return [role for role, own in ROLE_PERMISSIONS.items() if own.intersection(permissions)]
