"""What billing has to tell a member above every page."""

from __future__ import annotations

from datetime import datetime

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from apps.billing import selectors
from apps.billing.states import grace_of, ladder_of
from apps.core.http.navigation import Banner
from apps.core.permissions import ROLE_PERMISSIONS, Permission, Role
from apps.organizations.models import BillingState, Membership


def billing_state(*, request: HttpRequest, membership: Membership) -> Banner | None:
    """Return what a member who sees the money should know of it, unless the credit is healthy.

    A page that has loaded the organization's guard may leave it on the request, as `spend_guard`.
    """
    organization = membership.organization
    if organization.billing_state == BillingState.HEALTHY:
        return None
    if Permission.BILLING_READ not in ROLE_PERMISSIONS[Role(membership.role)]:
        return None
    guard = getattr(request, "spend_guard", None) or selectors.guard_of(organization.id)
    ladder = ladder_of(
        grace=grace_of(organization.plan),
        runway_ends_at=guard.runway_ends_at,
        depleted_at=guard.depleted_at,
        stop_requested_at=guard.stop_requested_at,
    )
    text = _("We blocked new usage of this organization. What runs goes on. Contact support.")
    if organization.billing_state == BillingState.LOW:
        text = _("The credit is low.")
        if guard.runway_ends_at:
            text = _("The credit lasts until %(when)s at the current rate.") % {
                "when": _when(guard.runway_ends_at)
            }
    elif organization.billing_state == BillingState.DEPLETED and ladder:
        text = _("The credit is used up: nothing new starts, and what runs is stopped on %(when)s.") % {
            "when": _when(ladder.stop_at)
        }
    elif guard.suspended_at is None and ladder:
        text = _("The credit is used up and what ran was asked to stop. Data is kept until %(when)s.") % {
            "when": _when(ladder.data_kept_until)
        }
    may_pay = Permission.BILLING_TOP_UP in ROLE_PERMISSIONS[Role(membership.role)]
    is_about_credit = guard.suspended_at is None
    route = "payments" if may_pay and is_about_credit else "overview"
    return Banner(
        text=text,
        tone="caution" if organization.billing_state == BillingState.LOW else "danger",
        action_text=_("Top up") if route == "payments" else _("See where it stands"),
        action_url=reverse(route, kwargs={"slug": organization.slug}),
    )


def _when(moment: datetime) -> str:
    return date_format(timezone.localtime(moment), "j F, H:i")
