"""REST: redeeming voucher codes, and asking whether one would do."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import request as drf
from rest_framework import serializers
from rest_framework.response import Response

from apps.core import money
from apps.core.errors import DomainError
from apps.core.http.serializers import Input
from apps.core.http.views import OrganizationView, Request
from apps.core.permissions import Permission
from apps.idempotency.mixins import IdempotentMixin
from apps.vouchers import services
from apps.vouchers.models import Campaign, Redemption


class VoucherInput(Input):
    """A voucher's code, as typed: case, spaces and hyphens do not matter."""

    code = serializers.CharField()


class RedemptionOutput(serializers.Serializer[Any]):
    """What a code became: promotional credit, see `/billing/credits` for the lot."""

    id = serializers.UUIDField()
    campaign = serializers.CharField(source="campaign.name")
    amount = serializers.SerializerMethodField()
    currency = serializers.CharField(source="lot.currency")
    lot = serializers.UUIDField(source="lot_id")
    expires_at = serializers.DateTimeField(source="lot.expires_at", allow_null=True)
    redeemed_at = serializers.DateTimeField(source="created_at")

    def get_amount(self, redemption: Redemption) -> str:
        return _amount(redemption.campaign)


class ValidityOutput(serializers.Serializer[Any]):
    """Whether a code would do now. Nothing but `error` and `code` is told of one that would not."""

    valid = serializers.BooleanField()
    voucher_id = serializers.UUIDField(allow_null=True)
    voucher_amount = serializers.CharField(allow_null=True)
    currency = serializers.CharField(allow_null=True)
    credit_expires_at = serializers.DateTimeField(allow_null=True)
    code = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True)


class _GuessedView(OrganizationView):
    """A view that takes codes: each is a guess, counted before the transaction that a wrong one rolls back."""

    permission = Permission.BILLING_TOP_UP

    def initial(self, request: drf.Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":
            services.count_guess(actor=self.actor)


class VoucherRedeem(IdempotentMixin, _GuessedView):
    """Turning a code into credit."""

    idempotency_required = True

    @extend_schema(request=VoucherInput, responses={201: RedemptionOutput})
    def post(self, request: Request) -> Response:
        """Redeem a code; whatever is wrong with it, the answer is the same."""
        made = services.redeem(
            actor=self.actor,
            organization=self.organization,
            code=VoucherInput.parse(request)["code"],
            now=timezone.now(),
        )
        return Response(RedemptionOutput(made).data, status=201)


class VoucherValidate(_GuessedView):
    """Asking whether a code would do."""

    @extend_schema(request=VoucherInput, responses=ValidityOutput)
    def post(self, request: Request) -> Response:
        """Say whether the organization could redeem a code now; redeems nothing."""
        body, now = VoucherInput.parse(request), timezone.now()
        nothing = dict.fromkeys(ValidityOutput().fields)
        try:
            found = services.check_code(
                actor=self.actor, organization=self.organization, code=body["code"], now=now
            )
        except DomainError as error:
            return Response({**nothing, "valid": False, "code": error.code, "error": str(error)})
        return Response(
            {
                **nothing,
                "valid": True,
                "voucher_id": found.id,
                "voucher_amount": _amount(found.campaign),
                "currency": found.campaign.currency,
                "credit_expires_at": services.expiry_of(found.campaign, now),
            }
        )


def _amount(campaign: Campaign) -> str:
    return f"{money.from_micros(campaign.amount_micros):f}"
