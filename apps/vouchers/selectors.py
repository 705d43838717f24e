"""What became of the credit that campaigns gave away."""

from __future__ import annotations

from typing import Any

from django.db.models import BigIntegerField, Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from apps.billing.models import CreditLot, Pot
from apps.vouchers.models import Campaign, Redemption, VoucherCode


def with_report(campaigns: QuerySet[Campaign]) -> QuerySet[Campaign]:
    """Add to each campaign what became of it. One query, whatever their number.

    issued: codes that are not void. granted_micros = spent_micros + expired_micros + taken_back_micros + left_micros.
    converted: organizations that got paid credit after they had redeemed.
    """
    redemptions = Redemption.objects.filter(campaign=OuterRef("pk"))
    paid_later = CreditLot.objects.filter(
        organization=OuterRef("organization"), pot=Pot.PAID, created_at__gt=OuterRef("created_at")
    ).exclude(source="usage_reversal")
    codes = VoucherCode.objects.filter(campaign=OuterRef("pk"), voided_at=None)
    account = "lot__account"

    def gone(kind: str) -> Sum:
        return Sum(f"{account}__debits__amount_micros", filter=Q(**{f"{account}__debits__kind": kind}))

    return campaigns.annotate(
        issued=_per_campaign(codes, Count("pk")),
        granted_micros=_per_campaign(redemptions, Sum("lot__amount_micros")),
        spent_micros=_per_campaign(
            redemptions, Sum(F("lot__burns__amount_micros") - F("lot__burns__reversed_micros"))
        ),
        expired_micros=_per_campaign(redemptions, gone("expiry")),
        taken_back_micros=_per_campaign(redemptions, gone("reversal")),
        left_micros=_per_campaign(redemptions, Sum(f"{account}__balance_micros")),
        converted=_per_campaign(redemptions.filter(Exists(paid_later)), Count("organization", distinct=True)),
    )


def _per_campaign(rows: QuerySet[Any], total: Any) -> Coalesce:
    """Return a total of rows of the outer campaign, zero without any."""
    sums = rows.order_by().values("campaign").annotate(total=total).values("total")
    return Coalesce(Subquery(sums, output_field=BigIntegerField()), 0)
