"""Budgets: what may be spent in a billing period, and what was already told about it."""

from __future__ import annotations

from typing import Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7

NAME_LENGTH_MAX = 100


class BudgetScope(models.TextChoices):
    """Whose spending a budget counts."""

    ORGANIZATION = "organization", _("Organization")
    PROJECT = "project", _("Project")
    API_KEY = "api_key", _("API key")


class BudgetAction(models.TextChoices):
    """What happens when a budget is used up. What runs goes on in either case."""

    NOTIFY = "notify", _("Notify")
    BLOCK_NEW = "block_new", _("Block new usage")


class BudgetQuerySet(models.QuerySet["Budget"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id)

    def in_force(self) -> Self:
        return self.filter(ended_at=None)


class Budget(models.Model):
    """An amount for each billing period, net of tax. thresholds: percent of it at which somebody is told."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    name = models.CharField(max_length=NAME_LENGTH_MAX)
    scope = models.CharField(max_length=16, choices=BudgetScope)
    project = models.ForeignKey(
        "organizations.Project", models.PROTECT, related_name="+", db_constraint=False, null=True, blank=True
    )
    credential = models.ForeignKey(
        "credentials.ApiKey", models.PROTECT, related_name="+", db_constraint=False, null=True, blank=True
    )
    amount_micros = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    thresholds = ArrayField(models.PositiveSmallIntegerField())
    action = models.CharField(max_length=16, choices=BudgetAction, default=BudgetAction.NOTIFY)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = BudgetQuerySet.as_manager()

    class Meta:
        verbose_name = _("budget")
        verbose_name_plural = _("budgets")
        constraints = [
            models.UniqueConstraint(name="billing_budget_in_organization", fields=["organization", "id"]),
            models.CheckConstraint(name="billing_budget_amount_positive", condition=Q(amount_micros__gt=0)),
            models.CheckConstraint(
                name="billing_budget_action_known", condition=Q(action__in=BudgetAction.values)
            ),
            models.CheckConstraint(
                name="billing_budget_scope_complete",
                condition=Q(scope=BudgetScope.ORGANIZATION, project=None, credential=None)
                | Q(scope=BudgetScope.PROJECT, project__isnull=False, credential=None)
                | Q(scope=BudgetScope.API_KEY, project=None, credential__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class BudgetNotice(models.Model):
    """That a threshold was passed in a period: told once, whatever the spending does afterwards."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    budget = models.ForeignKey(Budget, models.PROTECT, related_name="notices", db_constraint=False)
    period = models.ForeignKey(
        "organizations.BillingPeriod", models.PROTECT, related_name="+", db_constraint=False
    )
    percent = models.PositiveSmallIntegerField()
    amount_micros = models.BigIntegerField()
    spent_micros = models.BigIntegerField()
    noticed_at = models.DateTimeField()

    class Meta:
        verbose_name = _("budget notice")
        verbose_name_plural = _("budget notices")
        constraints = [
            models.UniqueConstraint(name="billing_budgetnotice_once", fields=["budget", "period", "percent"]),
        ]

    def __str__(self) -> str:
        return f"{self.percent} %"
