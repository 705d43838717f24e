"""What counted things are checked against before there is one more of them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from apps.core.errors import Conflict
from apps.quotas import selectors
from apps.quotas.models import Quota, Target


class QuotaExceeded(Conflict):
    """The organization has as many as it may; `details` say of what, and `remedy` what lifts it."""

    code = "quota_exceeded"
    default_message = _("The limit is reached.")


def check(*, organization_id: UUID, quota: str, using: int, now: datetime) -> None:
    """Raise QuotaExceeded if an organization may not have this many; settings.LIMIT_CHECK names this.

    using: how many there will be. Called under the lock of the organization's row, which changes of the plan take as
    well, so that the last one is given away once.
    """
    limit = selectors.limits(organization_id=organization_id, now=now)[Target(Quota(quota))].value
    if limit is None or using <= limit:
        return
    remedy = _("Remove what is no longer needed, ask for more under Quotas, or choose a larger plan.")
    raise QuotaExceeded(
        _("%(name)s: the limit is %(limit)d. %(remedy)s")
        % {"name": Quota(quota).label, "limit": limit, "remedy": remedy},
        quota=quota,
        limit=limit,
        used=using - 1,
        remedy=str(remedy),
    )
