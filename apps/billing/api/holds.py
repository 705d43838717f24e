"""REST: holds, by which a provisioner reserves credit before it starts something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.billing import selectors
from apps.billing import services as billing
from apps.billing.filters import HoldFilters
from apps.billing.models import Hold
from apps.core import money
from apps.core.http.filters import refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import ListMixin, OrganizationView, Request
from apps.core.permissions import IntegrationScope, Permission
from apps.idempotency.mixins import IdempotentMixin

READ: frozenset[Permission | IntegrationScope] = frozenset(
    {IntegrationScope.HOLDS_WRITE, Permission.BILLING_READ}
)


class HoldInput(Input):
    """What to reserve, for which allocation, until when at the latest."""

    source = serializers.CharField(  # type: ignore[assignment]  # Field has an attribute of this name.
        help_text="As in the allocation's usage events."
    )
    subject = serializers.CharField(help_text="As in the allocation's usage events.")
    amount = serializers.DecimalField(max_digits=16, decimal_places=6)
    expires_at = serializers.DateTimeField(help_text="Within 31 days.")


class HoldOutput(serializers.Serializer[Any]):
    """Credit reserved for one allocation; remaining is what its own usage has left of it."""

    id = serializers.UUIDField()
    source = serializers.CharField()  # type: ignore[assignment]  # Field has an attribute of this name.
    subject = serializers.CharField()
    amount = serializers.CharField()
    remaining = serializers.CharField()
    currency = serializers.CharField()
    state = serializers.CharField(help_text="live, stopped, expired or cancelled")
    expires_at = serializers.DateTimeField()
    released_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class HoldList(ListMixin, IdempotentMixin, OrganizationView):
    """The holds, the newest first."""

    permission = {"GET": READ, "POST": IntegrationScope.HOLDS_WRITE}
    idempotency_required: ClassVar[bool] = True
    serializer_class = HoldOutput
    filterset_class = HoldFilters

    def get_queryset(self) -> QuerySet[Hold]:
        """Return the holds."""
        return Hold.objects.visible_to(self.actor)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return a page's holds with what each still reserves."""
        return selectors.hold_rows(self.organization, rows, now=timezone.now())

    @extend_schema(request=HoldInput, responses={200: HoldOutput, 201: HoldOutput})
    def post(self, request: Request, **_path: Any) -> Response:
        """Reserve available credit (201); an allocation that has a live hold keeps it as it is (200)."""
        body = HoldInput.parse(request)
        now = timezone.now()
        hold, is_new = billing.place_hold(
            actor=self.actor,
            organization=self.organization,
            source=body["source"],
            subject=body["subject"],
            amount_micros=money.to_micros(body["amount"]),
            expires_at=body["expires_at"],
            now=now,
        )
        (row,) = selectors.hold_rows(self.organization, [hold], now=now)
        return Response(HoldOutput(row).data, status=201 if is_new else 200)


class HoldDetail(IdempotentMixin, OrganizationView):
    """One hold."""

    permission = {"GET": READ, "DELETE": IntegrationScope.HOLDS_WRITE}

    @extend_schema(responses=HoldOutput)
    def get(self, request: Request, **path: Any) -> Response:
        """Return one hold."""
        refuse_unknown_parameters(request, set())
        (row,) = selectors.hold_rows(self.organization, [self._hold(path)], now=timezone.now())
        return Response(HoldOutput(row).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, **path: Any) -> Response:
        """Give back what a hold reserves; one that is over already stays as it is."""
        billing.release_hold(actor=self.actor, hold=self._hold(path), now=timezone.now())
        return Response(status=204)

    def _hold(self, path: dict[str, Any]) -> Hold:
        return get_object_or_404(Hold.objects.visible_to(self.actor), pk=path["hold_id"])
