"""REST: plans, an organization's quotas with what is used of them, and requests for more."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.errors import NotFound
from apps.core.http.filters import CreatedFilterSet, refuse_unknown_parameters
from apps.core.http.pagination import whole_list, whole_list_of
from apps.core.http.serializers import Input
from apps.core.http.views import PUBLIC, ApiView, ListMixin, OrganizationView, Request
from apps.core.money import plain
from apps.core.permissions import Permission
from apps.idempotency.mixins import IdempotentMixin
from apps.quotas import selectors, services
from apps.quotas.models import ANY, Plan, PlanLimit, Quota, QuotaRequest, RequestState
from apps.quotas.selectors import QuotaUse


class PlaceLimitOutput(serializers.Serializer[Any]):
    """A limit of GPUs at once for one SKU family or region; `*` is every one."""

    quota = serializers.CharField()
    family = serializers.CharField()
    region = serializers.CharField()
    limit = serializers.IntegerField(allow_null=True)


class PlanOutput(serializers.Serializer[Any]):
    """A plan. `limits` has every quota by name, null where there is no limit.

    negotiated: every organization on it has limits of its own; those here are where the negotiation starts.
    """

    id = serializers.UUIDField()
    code = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    negotiated = serializers.BooleanField(source="is_negotiated")
    limits = serializers.SerializerMethodField()
    place_limits = serializers.SerializerMethodField()

    @extend_schema(responses={"type": "object", "additionalProperties": {"type": ["integer", "null"]}})
    def get_limits(self, plan: Plan) -> dict[str, int | None]:
        found = {row.quota: row.value for row in plan.limits.all() if not _is_of_place(row)}
        return {quota: found.get(quota) for quota in Quota.values}

    @extend_schema(responses=PlaceLimitOutput(many=True))
    def get_place_limits(self, plan: Plan) -> list[dict[str, Any]]:
        rows = sorted(filter(_is_of_place, plan.limits.all()), key=lambda row: (row.family, row.region))
        return [
            {"quota": row.quota, "family": row.family, "region": row.region, "limit": row.value}
            for row in rows
        ]


def _is_of_place(row: PlanLimit) -> bool:
    return (row.family, row.region) != (ANY, ANY)


class PlanList(ListMixin, ApiView):
    """The plans that are offered, the one with the least first."""

    permission = PUBLIC
    serializer_class = PlanOutput
    ordering = ("position", "id")

    def get_queryset(self) -> QuerySet[Plan]:
        """Return the plans with their limits."""
        return selectors.plans()


class PlanDetail(ApiView):
    """One plan."""

    permission = PUBLIC

    @extend_schema(responses=PlanOutput)
    def get(self, request: Request, plan: str) -> Response:
        """Return one plan, by its id or its code."""
        refuse_unknown_parameters(request, set())
        found = next((row for row in selectors.plans() if plan in (str(row.id), row.code)), None)
        if found is None:
            raise NotFound
        return Response(PlanOutput(found).data)


class QuotaOutput(serializers.Serializer[Any]):
    """A limit beside what is used of it. `limit`: null is no limit; `used` is null for rates, which are not counted.

    family, region: `*` is every one that no narrower row is about. source: `plan`, or `organization` for a limit of its
    own, which ends at `expires_at`.
    """

    quota = serializers.CharField()
    name = serializers.CharField()
    family = serializers.CharField()
    region = serializers.CharField()
    limit = serializers.IntegerField(allow_null=True)
    used = serializers.CharField(allow_null=True)
    remaining = serializers.CharField(allow_null=True)
    source = serializers.CharField()  # type: ignore[assignment]  # Field has an attribute of this name.
    expires_at = serializers.DateTimeField(allow_null=True)


class QuotaList(OrganizationView):
    """What the organization may use, and what it uses."""

    permission = Permission.QUOTAS_READ

    @extend_schema(responses=whole_list_of(QuotaOutput))
    def get(self, request: Request, **_path: Any) -> Response:
        """Return every limit with its use; GPUs at once are those of the last tick."""
        refuse_unknown_parameters(request, set())
        found = selectors.uses(organization_id=self.organization_id, now=timezone.now())
        return whole_list([_quota_row(row) for row in found])


def _quota_row(use: QuotaUse) -> dict[str, Any]:
    target = use.limit.target
    return {
        "quota": target.quota,
        "name": str(Quota(target.quota).label),
        "family": target.family,
        "region": target.region,
        "limit": use.limit.value,
        "used": None if use.used is None else plain(selectors.shown(use.used)),
        "remaining": None if use.remaining is None else plain(selectors.shown(use.remaining)),
        "source": "organization" if use.limit.is_own else "plan",
        "expires_at": use.limit.expires_at,
    }


class QuotaRequestInput(Input):
    """What is asked for. `family` and `region` narrow GPUs at once."""

    quota = serializers.ChoiceField(choices=Quota.choices)
    family = serializers.CharField(required=False, default="", allow_blank=True, max_length=120)
    region = serializers.CharField(required=False, default="", allow_blank=True, max_length=64)
    requested = serializers.IntegerField()
    reason = serializers.CharField()


class QuotaRequestOutput(serializers.Serializer[Any]):
    """A request. Decided: `granted` is what was given, until `expires_at`, and `message` what staff say about it."""

    id = serializers.UUIDField()
    quota = serializers.CharField()
    family = serializers.CharField()
    region = serializers.CharField()
    requested = serializers.IntegerField()
    limit_then = serializers.IntegerField()
    reason = serializers.CharField()
    state = serializers.CharField()
    requested_by = serializers.CharField(source="requested_by_label")
    created_at = serializers.DateTimeField()
    decided_at = serializers.DateTimeField(allow_null=True)
    granted = serializers.IntegerField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    message = serializers.CharField()


class QuotaRequestFilters(CreatedFilterSet):
    """By state or quota."""

    state = filters.MultipleChoiceFilter(choices=RequestState.choices)
    quota = filters.ChoiceFilter(choices=Quota.choices)


class QuotaRequestList(ListMixin, IdempotentMixin, OrganizationView):
    """The requests for more, the newest first."""

    permission = {"GET": Permission.QUOTAS_READ, "POST": Permission.QUOTAS_REQUEST}
    serializer_class = QuotaRequestOutput
    filterset_class = QuotaRequestFilters
    sortable: ClassVar = {"created_at": ("created_at", "id")}

    def get_queryset(self) -> QuerySet[QuotaRequest]:
        """Return the requests of the organization."""
        return QuotaRequest.objects.visible_to(self.actor)

    @extend_schema(request=QuotaRequestInput, responses={201: QuotaRequestOutput})
    def post(self, request: Request, **_path: Any) -> Response:
        """Ask for a higher limit; staff decide."""
        made = services.request_quota(
            actor=self.actor,
            organization=self.organization,
            now=timezone.now(),
            **QuotaRequestInput.parse(request),
        )
        return Response(QuotaRequestOutput(made).data, status=201)


class QuotaRequestDetail(IdempotentMixin, OrganizationView):
    """One request."""

    permission = {"GET": Permission.QUOTAS_READ, "DELETE": Permission.QUOTAS_REQUEST}

    @extend_schema(responses=QuotaRequestOutput)
    def get(self, request: Request, **path: Any) -> Response:
        """Return one request."""
        refuse_unknown_parameters(request, set())
        return Response(QuotaRequestOutput(self._found(path["request_id"])).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, **path: Any) -> Response:
        """Withdraw a request that is not decided; it stays in the list."""
        services.withdraw_request(
            actor=self.actor, request=self._found(path["request_id"]), now=timezone.now()
        )
        return Response(status=204)

    def _found(self, request_id: UUID) -> QuotaRequest:
        return get_object_or_404(QuotaRequest.objects.visible_to(self.actor), pk=request_id)
