"""What the scopes of a key mean, in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.core.permissions import Permission

# What only a person may do, whatever the scopes of a key.
PEOPLE_ONLY = frozenset(
    {
        Permission.MEMBERS_INVITE,
        Permission.MEMBERS_MANAGE,
        Permission.ORGANIZATION_DELETE,
        Permission.ORGANIZATION_TRANSFER,
    }
)
SCOPE_PURPOSES: Mapping[Permission, Promise] = MappingProxyType(
    {
        Permission.ORGANIZATION_READ: _("See the organization's name, plan and settings"),
        Permission.ORGANIZATION_UPDATE: _("Change its name and settings"),
        Permission.ORGANIZATION_DELETE: _("Delete the organization"),
        Permission.ORGANIZATION_TRANSFER: _("Hand the organization over"),
        Permission.MEMBERS_READ: _("List members and invites"),
        Permission.MEMBERS_INVITE: _("Invite people"),
        Permission.MEMBERS_MANAGE: _("Change and remove members"),
        Permission.PROJECTS_READ: _("List projects"),
        Permission.PROJECTS_MANAGE: _("Make, rename and archive projects"),
        Permission.API_KEYS_READ: _("List keys, without their secrets"),
        Permission.API_KEYS_CREATE: _("Make keys that can do no more than this one"),
        Permission.API_KEYS_MANAGE: _("Rotate, switch off and revoke keys"),
        Permission.USAGE_READ: _("Read usage and what runs"),
        Permission.BILLING_READ: _("Read balance, transactions and invoices"),
        Permission.BILLING_TOP_UP: _("Buy credit and redeem vouchers"),
        Permission.BILLING_MANAGE: _("Manage payment methods and billing details"),
        Permission.BUDGETS_MANAGE: _("Set budgets"),
        Permission.QUOTAS_READ: _("Read limits and what is used of them"),
        Permission.QUOTAS_REQUEST: _("Ask for higher limits"),
        Permission.AUDIT_READ: _("Read the audit log"),
    }
)
