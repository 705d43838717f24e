"""REST: who invoices are made out to."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.http.filters import refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import OrganizationView, Request
from apps.core.permissions import Permission
from apps.idempotency.mixins import IdempotentMixin
from apps.organizations import services as organizations
from apps.organizations.models import BillingProfile, VatState

ADDRESS = ("line1", "line2", "postal_code", "city", "region")


class AddressInput(Input):
    line1 = serializers.CharField(required=False, allow_blank=True)
    line2 = serializers.CharField(required=False, allow_blank=True)
    postal_code = serializers.CharField(required=False, allow_blank=True)
    city = serializers.CharField(required=False, allow_blank=True)
    region = serializers.CharField(required=False, allow_blank=True)


class BillingProfileInput(Input):
    """What to change; the rest stays. An empty text removes."""

    legal_name = serializers.CharField(required=False, allow_blank=True)
    address = AddressInput(required=False)
    country = serializers.CharField(required=False, allow_blank=True, help_text="ISO 3166-1, such as DE.")
    vat_id = serializers.CharField(required=False, allow_blank=True)
    billing_emails = serializers.ListField(child=serializers.CharField(), required=False)
    po_number = serializers.CharField(required=False, allow_blank=True)


class AddressOutput(serializers.Serializer[Any]):
    line1 = serializers.CharField()
    line2 = serializers.CharField()
    postal_code = serializers.CharField()
    city = serializers.CharField()
    region = serializers.CharField()


class BillingProfileOutput(serializers.Serializer[Any]):
    """Who invoices are made out to. `vat_state`: what is known of the VAT id beyond its form."""

    legal_name = serializers.CharField()
    address = AddressOutput(source="*")
    country = serializers.CharField()
    vat_id = serializers.CharField()
    vat_state = serializers.ChoiceField(choices=VatState.choices)
    vat_checked_at = serializers.DateTimeField(allow_null=True)
    billing_emails = serializers.ListField(child=serializers.CharField())
    po_number = serializers.CharField()


class BillingProfileDetail(IdempotentMixin, OrganizationView):
    """The billing profile of an organization; empty until somebody fills it in."""

    permission = {"GET": Permission.BILLING_READ, "PATCH": Permission.BILLING_MANAGE}

    @extend_schema(responses=BillingProfileOutput)
    def get(self, request: Request, **_path: Any) -> Response:
        """Return the billing profile."""
        refuse_unknown_parameters(request, set())
        profile = BillingProfile.objects.filter(organization=self.organization).first() or BillingProfile(
            organization=self.organization
        )
        return Response(BillingProfileOutput(profile).data)

    @extend_schema(request=BillingProfileInput, responses=BillingProfileOutput)
    def patch(self, request: Request, **_path: Any) -> Response:
        """Change what is given; invoices that are final keep what they say."""
        body = BillingProfileInput.parse(request)
        body |= body.pop("address", {})
        changed = organizations.change_billing_profile(
            actor=self.actor, organization=self.organization, now=timezone.now(), **body
        )
        return Response(BillingProfileOutput(changed).data)
