"""REST: budgets, with what each has spent and will have spent by the end of the period."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.billing import budgets as reads
from apps.billing import services as billing
from apps.billing.filters import BudgetFilters
from apps.billing.models import Budget, BudgetAction, BudgetScope
from apps.core import money
from apps.core.errors import FieldError, ValidationFailed
from apps.core.http.filters import refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import ListMixin, OrganizationView, Request
from apps.core.permissions import IntegrationScope, Permission
from apps.credentials.models import ApiKey
from apps.idempotency.mixins import IdempotentMixin
from apps.organizations.models import Project

READ: frozenset[Permission | IntegrationScope] = frozenset(
    {Permission.BILLING_READ, Permission.BUDGETS_MANAGE}
)


class BudgetChange(Input):
    """What to change of a budget; whose spending it counts stays."""

    name = serializers.CharField(required=False)
    amount = serializers.DecimalField(max_digits=16, decimal_places=6, required=False)
    thresholds = serializers.ListField(child=serializers.IntegerField(), required=False, help_text="Percent.")
    action = serializers.ChoiceField(choices=BudgetAction.choices, required=False)


class BudgetInput(BudgetChange):
    """A new budget. `project` is a slug, `api_key` a public id; each only with its scope. Without a name: theirs."""

    name = serializers.CharField(required=False, allow_blank=True, default="")
    scope = serializers.ChoiceField(choices=BudgetScope.choices)
    project = serializers.CharField(required=False, allow_null=True, default=None)
    api_key = serializers.CharField(required=False, allow_null=True, default=None)
    amount = serializers.DecimalField(max_digits=16, decimal_places=6)


class BudgetOutput(serializers.Serializer[Any]):
    """A budget in the running period. forecast: at the pace so far, null in the first six hours."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    scope = serializers.CharField()
    project = serializers.CharField(allow_null=True)
    api_key = serializers.CharField(allow_null=True)
    amount = serializers.CharField()
    currency = serializers.CharField()
    thresholds = serializers.ListField(child=serializers.IntegerField())
    action = serializers.CharField()
    period = serializers.CharField()
    spent = serializers.CharField()
    percent = serializers.IntegerField()
    state = serializers.CharField(help_text="within, warned or exceeded")
    forecast = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class BudgetList(ListMixin, IdempotentMixin, OrganizationView):
    """The budgets in force, the newest first."""

    permission = {"GET": READ, "POST": Permission.BUDGETS_MANAGE}
    serializer_class = BudgetOutput
    filterset_class = BudgetFilters
    sortable: ClassVar = {"created_at": ("created_at", "id")}

    def get_queryset(self) -> QuerySet[Budget]:
        """Return the budgets in force."""
        return Budget.objects.visible_to(self.actor).in_force().select_related("project", "credential")

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return a page's budgets as they stand."""
        found = reads.states(self.organization, rows, now=timezone.now())
        return [reads.budget_row(one) for one in found]

    @extend_schema(request=BudgetInput, responses={201: BudgetOutput})
    def post(self, request: Request, **_path: Any) -> Response:
        """Make a budget."""
        body = BudgetInput.parse(request)
        given = {name: body[name] for name in ("thresholds", "action") if name in body}
        budget = billing.create_budget(
            actor=self.actor,
            organization=self.organization,
            name=body["name"],
            scope=BudgetScope(body["scope"]),
            project=self._project(body["project"]),
            credential=self._key(body["api_key"]),
            amount_micros=money.to_micros(body["amount"]),
            now=timezone.now(),
            **given,
        )
        return Response(self.render_rows([budget])[0], status=201)

    def _project(self, slug: str | None) -> Project | None:
        if slug is None:
            return None
        found = Project.objects.visible_to(self.actor).filter(slug=slug).first()
        return found or _unknown("project", _("There is no project of this slug."))

    def _key(self, public_id: str | None) -> ApiKey | None:
        if public_id is None:
            return None
        found = ApiKey.objects.visible_to(self.actor).filter(public_id=public_id).first()
        return found or _unknown("api_key", _("There is no API key of this public id."))


class BudgetDetail(IdempotentMixin, OrganizationView):
    """One budget in force."""

    permission = {"GET": READ, "PATCH": Permission.BUDGETS_MANAGE, "DELETE": Permission.BUDGETS_MANAGE}

    @extend_schema(responses=BudgetOutput)
    def get(self, request: Request, **path: Any) -> Response:
        """Return one budget as it stands."""
        refuse_unknown_parameters(request, set())
        return self._answer(self._budget(path))

    @extend_schema(request=BudgetChange, responses=BudgetOutput)
    def patch(self, request: Request, **path: Any) -> Response:
        """Change a budget; what was told in this period is not told again."""
        budget = self._budget(path)
        body = BudgetChange.parse(request)
        if "amount" in body:
            body["amount_micros"] = money.to_micros(body.pop("amount"))
        return self._answer(
            billing.change_budget(actor=self.actor, budget=budget, now=timezone.now(), **body)
        )

    @extend_schema(responses={204: None})
    def delete(self, request: Request, **path: Any) -> Response:
        """End a budget."""
        billing.end_budget(actor=self.actor, budget=self._budget(path), now=timezone.now())
        return Response(status=204)

    def _answer(self, budget: Budget) -> Response:
        (found,) = reads.states(self.organization, [budget], now=timezone.now())
        return Response(BudgetOutput(reads.budget_row(found)).data)

    def _budget(self, path: dict[str, Any]) -> Budget:
        rows = Budget.objects.visible_to(self.actor).in_force().select_related("project", "credential")
        return get_object_or_404(rows, pk=path["budget_id"])


def _unknown(field: str, message: str) -> Any:
    raise ValidationFailed(fields=[FieldError(path=field, code="unknown", message=message)])
