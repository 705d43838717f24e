"""REST: may this start, and if so, hold the credit for it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, NoReturn

from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.billing import entitlements
from apps.billing import services as billing
from apps.billing.entitlements import Launch
from apps.core import money
from apps.core.errors import FieldError, PermissionDenied, ValidationFailed
from apps.core.http.serializers import Input
from apps.core.http.views import OrganizationView, Request
from apps.core.permissions import IntegrationScope
from apps.credentials.models import ApiKey
from apps.idempotency.mixins import IdempotentMixin
from apps.metering.models import REGION_LENGTH_MAX, SKU_LENGTH_MAX
from apps.organizations.models import Project

GPUS_MAX = 1_000_000
HOURS_MAX = 8_784
SECONDS_MAX = 31 * 86_400


class EntitlementHold(Input):
    """The allocation to hold for. Without `source` it is the allocation of that name, wherever it comes from."""

    allocation = serializers.CharField(max_length=255)
    expires_in = serializers.IntegerField(min_value=1, max_value=SECONDS_MAX, help_text="Seconds.")
    source = serializers.CharField(  # type: ignore[assignment]  # Field has an attribute of this name.
        required=False, default="", allow_blank=True, max_length=255
    )


class EntitlementInput(Input):
    """What is to start. `project` is a slug, `api_key` a public id, for their budgets."""

    sku = serializers.CharField(max_length=SKU_LENGTH_MAX)
    region = serializers.CharField(max_length=REGION_LENGTH_MAX)
    gpus = serializers.DecimalField(max_digits=12, decimal_places=3, min_value=0, max_value=GPUS_MAX)
    hours = serializers.DecimalField(
        max_digits=8, decimal_places=3, min_value=0, max_value=HOURS_MAX, required=False, default=Decimal(1)
    )
    project = serializers.CharField(required=False, allow_null=True, default=None)
    api_key = serializers.CharField(required=False, allow_null=True, default=None)
    hold = EntitlementHold(required=False, allow_null=True, default=None)


class ReasonOutput(serializers.Serializer[Any]):
    """Why not, and what would lift it."""

    code = serializers.CharField()
    remedy = serializers.CharField()


class EntitlementOutput(serializers.Serializer[Any]):
    """The answer. estimated_cost: of the hours; runway_ends_at: of the credit, if it starts and all runs on."""

    allowed = serializers.BooleanField()
    reasons = ReasonOutput(many=True)
    estimated_cost = serializers.CharField(allow_null=True)
    currency = serializers.CharField()
    runway_ends_at = serializers.DateTimeField(allow_null=True)
    hold_id = serializers.UUIDField(required=False)


class EntitlementCheck(IdempotentMixin, OrganizationView):
    """Whether something may start now."""

    permission = {"POST": IntegrationScope.ENTITLEMENTS_CHECK}

    @extend_schema(request=EntitlementInput, responses=EntitlementOutput)
    def post(self, request: Request, **_path: Any) -> Response:
        """Ask before a launch; with `hold` (scope `holds:write`) reserve what it needs in the same step."""
        body = EntitlementInput.parse(request)
        launch = Launch(
            sku=body["sku"],
            region=body["region"],
            gpus=body["gpus"],
            hours=body["hours"],
            project=self._project(body["project"]),
            credential=self._key(body["api_key"]),
        )
        now = timezone.now()
        hold = None
        if asked := body["hold"]:
            if not self.actor.can(IntegrationScope.HOLDS_WRITE):
                raise PermissionDenied(permissions=[IntegrationScope.HOLDS_WRITE])
            found, hold = billing.check_and_hold(
                actor=self.actor,
                organization=self.organization,
                launch=launch,
                source=asked["source"],
                subject=asked["allocation"],
                expires_at=now + timedelta(seconds=asked["expires_in"]),
                now=now,
            )
        else:
            found = entitlements.check(self.organization, launch, now=now)
        cost = found.cost_micros
        answer = {
            "allowed": found.allowed,
            "reasons": [{"code": one.code, "remedy": one.remedy} for one in found.reasons],
            "estimated_cost": None if cost is None else f"{money.from_micros(cost):f}",
            "currency": self.organization.currency,
            "runway_ends_at": found.runway_ends_at,
        }
        return Response(answer | ({"hold_id": hold.id} if hold else {}))

    def _project(self, slug: str | None) -> Project | None:
        if slug is None:
            return None
        found = Project.objects.visible_to(self.actor).active().filter(slug=slug).first()
        return found or _unknown("project", _("There is no active project of this slug."))

    def _key(self, public_id: str | None) -> ApiKey | None:
        if public_id is None:
            return None
        found = ApiKey.objects.visible_to(self.actor).filter(public_id=public_id).first()
        return found or _unknown("api_key", _("There is no API key of this public id."))


def _unknown(field: str, message: str) -> NoReturn:
    raise ValidationFailed(fields=[FieldError(path=field, code="unknown", message=message)])
