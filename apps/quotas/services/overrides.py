"""What single organizations have instead of their plan's limits."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext as _

from apps.audit import services as audit
from apps.core.actor import Actor, ActorKind
from apps.core.errors import FieldError, ValidationFailed
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.quotas.models import LimitOverride, QuotaRequest, Target
from apps.quotas.services.targets import check_limit, check_target


@transaction.atomic
def override_limit(
    *,
    actor: Actor,
    organization: Organization,
    target: Target,
    value: int | None,
    reason: str,
    expires_at: datetime | None = None,
    request: QuotaRequest | None = None,
    now: datetime,
) -> LimitOverride:
    """Give an organization a limit of its own from now on, on whatever plan; one for the same target ends here.

    value: None is no limit. It may be less than the plan's.
    """
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "customers ask for a quota"
    check_target(target)
    check_limit(target, value)
    check_expiry(expires_at, now)
    # The row that changes of the plan and every check of a count lock as well.
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    same_target = LimitOverride.objects.filter(
        organization=organization,
        quota=target.quota,
        family=target.family,
        region=target.region,
        ended_at=None,
    )
    earlier = same_target.select_for_update(no_key=True).first()
    if earlier is not None:
        earlier.ended_at = now
        earlier.save(update_fields=["ended_at"])
    made = LimitOverride.objects.create(
        organization=organization,
        quota=target.quota,
        family=target.family,
        region=target.region,
        value=value,
        request=request,
        reason=reason,
        created_by_label=actor.label,
        created_at=now,
        expires_at=expires_at,
    )
    _tell(actor, "limit_override.created", made, before=earlier, reason=reason)
    return made


@transaction.atomic
def end_limit_override(*, actor: Actor, override: LimitOverride, reason: str, now: datetime) -> None:
    """End an override now; the plan's limit holds again. One that has ended stays as it is."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "customers ask for a quota"
    Organization.objects.select_for_update(no_key=True).get(pk=override.organization_id)
    override = LimitOverride.objects.select_for_update(no_key=True).get(pk=override.pk)
    if override.ended_at is not None:
        return
    override.ended_at = now
    override.save(update_fields=["ended_at"])
    _tell(actor, "limit_override.ended", override, reason=reason)


def check_expiry(expires_at: datetime | None, now: datetime) -> None:
    """Raise ValidationFailed for an end that has passed."""
    if expires_at is not None and expires_at <= now:
        message = _("The end must lie in the future.")
        raise ValidationFailed(fields=[FieldError(path="expires_at", code="invalid", message=message)])


def _tell(
    actor: Actor,
    action: str,
    override: LimitOverride,
    *,
    before: LimitOverride | None = None,
    reason: str,
) -> None:
    facts = {
        "quota": override.quota,
        "family": override.family,
        "region": override.region,
        "expires_at": override.expires_at.isoformat() if override.expires_at else None,
    }
    diff = {**facts, "value": [before and before.value, override.value]}
    audit.record(actor=actor, action=action, target=override, diff=diff, reason=reason)
    outbox.publish(
        f"quotas.{action.replace('.', '_')}",
        {"id": override.id, **facts, "value": override.value},
        organization_id=override.organization_id,
    )
