"""Plans: what they allow, and who has which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.core import jobs
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.quotas.models import CODE_PATTERN, Plan, PlanLimit, Target
from apps.quotas.services.targets import check_limit, check_target


class UnknownPlan(Conflict):
    """There is no plan of this code."""

    code = "unknown_plan"
    default_message = gettext_lazy("There is no such plan.")


@transaction.atomic
def assign_plan(
    *, actor: Actor, organization: Organization, plan_code: str, reason: str, now: datetime
) -> Organization:
    """Put an organization on another plan; its limits hold from now on, and what exceeds them stays but cannot grow.

    Raises UnknownPlan.
    """
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "customers ask support"
    plan = Plan.objects.filter(code=plan_code).first()
    if plan is None:
        raise UnknownPlan(plan=plan_code)
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    before = organization.plan
    if before == plan.code:
        return organization
    organization.plan = plan.code
    organization.save(update_fields=["plan"])
    audit.record(
        actor=actor,
        action="plan.assigned",
        target=organization,
        organization_id=organization.id,
        diff={"plan": [before, plan.code]},
        reason=reason,
    )
    outbox.publish(
        "quotas.plan_assigned",
        {"id": organization.id, "plan": plan.code, "before": before, "assigned_at": now.isoformat()},
        organization_id=organization.id,
    )
    # What may be owed, and for how long, follows from the plan.
    jobs.enqueue("billing.settle_state", organization_id=organization.id)
    return organization


@transaction.atomic
def save_plan(*, actor: Actor, plan: Plan) -> Plan:
    """Add a plan, or change what it is called and to whom it is shown; its code stays for ever."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "plans are the operator's"
    if not re.fullmatch(CODE_PATTERN, plan.code):
        message = _("A code has lower-case letters, digits and underscores, and begins with a letter.")
        raise ValidationFailed(fields=[FieldError(path="code", code="invalid", message=message)])
    before = Plan.objects.select_for_update(no_key=True).filter(pk=plan.pk).first()
    facts = ("name", "description", "position", "is_negotiated", "is_public")
    diff: dict[str, Any] = {
        name: [getattr(before, name) if before else None, getattr(plan, name)]
        for name in facts
        if before is None or getattr(before, name) != getattr(plan, name)
    }
    if before is not None:
        plan.code = before.code
        if not diff:
            return plan
    plan.save(force_insert=before is None)
    action = "plan.changed" if before else "plan.created"
    audit.record(actor=actor, action=action, target=plan, diff=diff)
    outbox.publish(f"quotas.{action.replace('.', '_')}", {"plan": plan.code, "changed": sorted(diff)})
    return plan


@transaction.atomic
def set_plan_limits(*, actor: Actor, plan: Plan, limits: Mapping[Target, int | None]) -> None:
    """Make these the limits of a plan, for every organization on it, from now on. None, or no entry, is no limit."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "plans are the operator's"
    for target, value in limits.items():
        check_target(target)
        check_limit(target, value)
    plan = Plan.objects.select_for_update(no_key=True).get(pk=plan.pk)
    rows = {row.target: row for row in PlanLimit.objects.filter(plan=plan)}
    diff: dict[str, Any] = {}
    for target, row in rows.items():
        if target not in limits:
            diff[_name(target)] = [row.value, None]
            row.delete()
    for target, value in limits.items():
        found = rows.get(target) or PlanLimit(
            plan=plan, quota=target.quota, family=target.family, region=target.region
        )
        if target in rows and found.value == value:
            continue
        diff[_name(target)] = [found.value, value]
        found.value = value
        found.save()
    if diff:
        audit.record(actor=actor, action="plan.limits_changed", target=plan, diff=diff)
        outbox.publish("quotas.plan_limits_changed", {"plan": plan.code, "changed": diff})


def _name(target: Target) -> str:
    return ":".join(target)
