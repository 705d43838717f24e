"""What an organization has to tell a member above every page."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from apps.core.http.navigation import Banner
from apps.identity import selectors as identity
from apps.organizations.models import Membership


def second_factor(*, request: HttpRequest, membership: Membership) -> Banner | None:
    """Return the reminder of a member who will be blocked for want of a second factor, while there is time."""
    organization = membership.organization
    ends_at = organization.mfa_grace_ends_at
    if not organization.require_mfa or ends_at is None or ends_at <= timezone.now():
        return None
    if identity.has_second_factor(request.user):
        return None
    day = date_format(timezone.localtime(ends_at), "j F, H:i")
    target = urlencode({"next": request.get_full_path()})
    return Banner(
        text=_("From %(day)s this organization opens only with a second factor. You have none yet.")
        % {"day": day},
        tone="caution",
        action_text=_("Set one up"),
        action_url=f"{reverse('enrol')}?{target}",
    )


def ownership_offer(*, request: HttpRequest, membership: Membership) -> Banner | None:  # noqa: ARG001  Every banner is asked alike.
    """Return that the organization is offered to this member."""
    if not membership.is_offered:  # type: ignore[attr-defined]  # `memberships_of` says it.
        return None
    return Banner(
        text=_("You are offered the ownership of this organization."),
        action_text=_("Look at the offer"),
        action_url=reverse("accept-transfer", kwargs={"slug": membership.organization.slug}),
    )
