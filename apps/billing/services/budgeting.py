"""Budgets: make, change and end them, and tell once for each threshold and period."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing import budgets as reads
from apps.billing.budgets import BudgetState
from apps.billing.models import AMOUNT_MICROS_MAX, Budget, BudgetAction, BudgetNotice, BudgetScope
from apps.billing.models.budgets import NAME_LENGTH_MAX
from apps.core.actor import Actor
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.core.money import plain_micros
from apps.credentials.models import ApiKey
from apps.notifications import services as notifications
from apps.organizations import selectors as organization_state
from apps.organizations.models import Organization, Project
from apps.outbox import services as outbox

BUDGETS_MAX = 100
THRESHOLDS_MAX = 10
PERCENT_MAX = 1000
THRESHOLDS_DEFAULT = (50, 80, 100)


class TooManyBudgets(Conflict):
    """An organization has as many budgets as can be watched."""

    code = "too_many_budgets"
    default_message = _("There are 100 budgets already. End one first.")


@transaction.atomic
def create_budget(
    *,
    actor: Actor,
    organization: Organization,
    name: str = "",
    scope: BudgetScope,
    amount_micros: int,
    project: Project | None = None,
    credential: ApiKey | None = None,
    thresholds: Sequence[int] = THRESHOLDS_DEFAULT,
    action: BudgetAction = BudgetAction.NOTIFY,
    now: datetime,
) -> Budget:
    """Make a budget for each billing period of an organization, one of its projects or one of its API keys.

    name: empty for that of whose spending it counts. Raises ValidationFailed for what cannot be, TooManyBudgets at the
    hundredth and first.
    """
    name = name or (project or credential or organization).name[:NAME_LENGTH_MAX]
    _check(name=name, amount_micros=amount_micros, thresholds=thresholds)
    _check_scope(scope, project, credential)
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if Budget.objects.filter(organization=organization).in_force().count() >= BUDGETS_MAX:
        raise TooManyBudgets
    budget = Budget.objects.create(
        organization=organization,
        name=name.strip(),
        scope=scope,
        project=project,
        credential=credential,
        amount_micros=amount_micros,
        currency=organization.currency,
        thresholds=sorted(set(thresholds)),
        action=action,
        created_at=now,
    )
    _tell(actor, "budget.created", budget, _facts(budget))
    return budget


@transaction.atomic
def change_budget(
    *,
    actor: Actor,
    budget: Budget,
    name: str | None = None,
    amount_micros: int | None = None,
    thresholds: Sequence[int] | None = None,
    action: BudgetAction | None = None,
    now: datetime,  # noqa: ARG001  Every service takes it; the row keeps no date of its changes, the audit log does.
) -> Budget:
    """Change what is given. What was told in this period is not told again."""
    budget = Budget.objects.select_for_update(no_key=True).get(pk=budget.pk)
    before = _facts(budget)
    budget.name = budget.name if name is None else name.strip()
    budget.amount_micros = budget.amount_micros if amount_micros is None else amount_micros
    budget.thresholds = budget.thresholds if thresholds is None else sorted(set(thresholds))
    budget.action = budget.action if action is None else action
    _check(name=budget.name, amount_micros=budget.amount_micros, thresholds=budget.thresholds)
    after = _facts(budget)
    diff = {field: [before[field], after[field]] for field in after if before[field] != after[field]}
    if diff:
        budget.save(update_fields=["name", "amount_micros", "thresholds", "action"])
        _tell(actor, "budget.changed", budget, diff)
    return budget


@transaction.atomic
def end_budget(*, actor: Actor, budget: Budget, now: datetime) -> None:
    """End a budget; its notices stay. One that has ended stays as it is."""
    budget = Budget.objects.select_for_update(no_key=True).get(pk=budget.pk)
    if budget.ended_at is None:
        budget.ended_at = now
        budget.save(update_fields=["ended_at"])
        _tell(actor, "budget.ended", budget, {})


@transaction.atomic
def settle_budgets(*, organization_id: UUID, now: datetime) -> int:
    """Tell of every threshold that spending has passed, once for each period, and return how many were new.

    Each is a notice and an event; the highest of a budget is a mail to each billing contact. Of two that see it at
    once, the second finds it told.
    """
    budgets = reads.budgets_of(organization_id)
    if not budgets:
        return 0
    organization = Organization.objects.get(pk=organization_id)
    found = [one for one in reads.states(organization, budgets, now=now) if one.passed()]
    if not any(_untold(one) for one in found):
        return 0
    list(
        Budget.objects.select_for_update(no_key=True)
        .filter(pk__in=[one.budget.pk for one in found])
        .order_by("pk")
        .values_list("pk")
    )
    count = 0
    for one in found:
        new = _untold(one)
        for percent in new:
            _notice(one, percent, now=now)
        if new:
            _mail(organization, one, max(new), now=now)
        count += len(new)
    return count


def _untold(found: BudgetState) -> list[int]:
    told = set(
        BudgetNotice.objects.filter(budget=found.budget, period=found.period).values_list(
            "percent", flat=True
        )
    )
    return [percent for percent in found.passed() if percent not in told]


def _notice(found: BudgetState, percent: int, *, now: datetime) -> None:
    budget = found.budget
    BudgetNotice.objects.create(
        organization_id=budget.organization_id,
        budget=budget,
        period=found.period,
        percent=percent,
        amount_micros=budget.amount_micros,
        spent_micros=found.spent_micros,
        noticed_at=now,
    )
    outbox.publish(
        "billing.budget_threshold_passed",
        {
            **_facts(budget),
            "id": str(budget.id),
            "period": found.period.label,
            "percent": percent,
            "spent": plain_micros(found.spent_micros),
            "blocks_new_usage": found.blocks,
        },
        organization_id=budget.organization_id,
    )


def _mail(organization: Organization, found: BudgetState, percent: int, *, now: datetime) -> None:
    budget = found.budget
    forecast = found.forecast_micros
    notifications.queue_mail(
        template="billing/mail/budget",
        to=organization_state.billing_recipients(organization, now=now),
        context={
            "organization": organization.name,
            "budget": budget.name,
            "scope": budget.scope,
            "about": str(budget.project or budget.credential or ""),
            "percent": percent,
            "spent": plain_micros(found.spent_micros),
            "amount": plain_micros(budget.amount_micros),
            "forecast": "" if forecast is None else plain_micros(forecast),
            "currency": budget.currency,
            "period": found.period.label,
            "blocks": found.blocks,
            "link": f"{settings.PUBLIC_URL}/app/{organization.slug}/budgets",
        },
        organization_id=organization.id,
        cause=f"billing.budget:{budget.id}:{found.period.label}:{percent}",
        now=now,
    )


def _check(*, name: str, amount_micros: int, thresholds: Sequence[int]) -> None:
    problems: dict[str, str | Promise | None] = {
        "name": None
        if 0 < len(name.strip()) <= NAME_LENGTH_MAX
        else _("Give the budget a name of up to 100 characters."),
        "amount": None
        if 0 < amount_micros <= AMOUNT_MICROS_MAX
        else _("Give an amount above zero, up to a billion."),
        "thresholds": None
        if 0 < len(thresholds) <= THRESHOLDS_MAX and all(0 < percent <= PERCENT_MAX for percent in thresholds)
        else _("Give one to ten thresholds, in percent from 1 to 1000."),
    }
    _refuse(problems)


def _check_scope(scope: BudgetScope, project: Project | None, credential: ApiKey | None) -> None:
    wants_project, wants_key = scope == BudgetScope.PROJECT, scope == BudgetScope.API_KEY
    _refuse(
        {
            "project": None
            if (project is not None) == wants_project
            else _("Name a project if, and only if, the budget is one of a project."),
            "api_key": None
            if (credential is not None) == wants_key
            else _("Name an API key if, and only if, the budget is one of an API key."),
        }
    )


def _refuse(problems: dict[str, str | Promise | None]) -> None:
    if fields := [
        FieldError(path=name, code="invalid", message=str(problem))
        for name, problem in problems.items()
        if problem
    ]:
        raise ValidationFailed(fields=fields)


def _facts(budget: Budget) -> dict[str, Any]:
    return {
        "name": budget.name,
        "scope": budget.scope,
        "project_id": str(budget.project_id) if budget.project_id else None,
        "api_key_id": str(budget.credential_id) if budget.credential_id else None,
        "amount": plain_micros(budget.amount_micros),
        "currency": budget.currency,
        "thresholds": list(budget.thresholds),
        "action": budget.action,
    }


def _tell(actor: Actor, action: str, budget: Budget, diff: dict[str, Any]) -> None:
    audit.record(actor=actor, action=action, target=budget, diff=diff)
    outbox.publish(
        f"billing.{action.replace('.', '_')}",
        {**_facts(budget), "id": str(budget.id)},
        organization_id=budget.organization_id,
    )
