"""Every write to vouchers: campaigns, their codes, redemptions."""

from apps.vouchers.services.campaigns import (
    CODES_AT_ONCE_MAX,
    CampaignFull,
    create_campaign,
    end_campaign,
    issue_codes,
    void_code,
)
from apps.vouchers.services.redemption import (
    AlreadyRedeemed,
    VoucherInvalid,
    check_code,
    count_guess,
    expiry_of,
    redeem,
)

__all__ = [
    "CODES_AT_ONCE_MAX",
    "AlreadyRedeemed",
    "CampaignFull",
    "VoucherInvalid",
    "check_code",
    "count_guess",
    "create_campaign",
    "end_campaign",
    "expiry_of",
    "issue_codes",
    "redeem",
    "void_code",
]
