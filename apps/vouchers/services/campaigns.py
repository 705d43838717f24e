"""Campaigns and their codes, made and ended by staff."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import Sum
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.core import money
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.outbox import services as outbox
from apps.vouchers import codes
from apps.vouchers.models import Campaign, CampaignKind, VoucherCode

CODES_AT_ONCE_MAX = 10_000
REDEMPTIONS_MAX = 1_000_000
AMOUNT_MICROS_MAX = 10**12
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+")


class CampaignFull(Conflict):
    """The campaign has as many codes as it allows redemptions, or its one code."""

    code = "campaign_full"
    default_message = gettext_lazy(
        "This campaign allows fewer codes than that. Make fewer, or void some that nobody has redeemed."
    )


@transaction.atomic
def create_campaign(
    *,
    actor: Actor,
    name: str,
    kind: CampaignKind,
    amount_micros: int,
    currency: str,
    redemptions_max: int,
    organization_max: int = 1,
    starts_at: datetime,
    ends_at: datetime | None = None,
    credit_days: int | None = None,
    new_within_days: int | None = None,
    allowed_domains: Sequence[str] = (),
    now: datetime,
) -> Campaign:
    """Make a campaign without codes; its terms never change afterwards. Raises ValidationFailed."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "only the operator gives credit away"
    domains = sorted({domain.strip().lower().lstrip("@") for domain in allowed_domains} - {""})
    name = name.strip()
    _refuse(
        name=None if 0 < len(name) <= 150 else _("A name has 1 to 150 characters."),
        amount=None
        if 0 < amount_micros <= AMOUNT_MICROS_MAX
        else _("Give an amount above zero, up to a million."),
        currency=None if money.is_currency(currency) else _("This is not an ISO 4217 currency code."),
        redemptions_max=_out_of(redemptions_max, REDEMPTIONS_MAX),
        organization_max=_out_of(organization_max, 1_000),
        ends_at=_("The end must come after the beginning and lie in the future.")
        if ends_at is not None and ends_at <= max(now, starts_at)
        else None,
        credit_days=None if credit_days is None else _out_of(credit_days, 3_660),
        new_within_days=None if new_within_days is None else _out_of(new_within_days, 3_660),
        allowed_domains=None
        if all(_DOMAIN.fullmatch(domain) and len(domain) <= 253 for domain in domains)
        else _("Domains look like example.com."),
    )
    campaign = Campaign(
        name=name,
        kind=kind,
        amount_micros=amount_micros,
        currency=currency,
        redemptions_max=redemptions_max,
        organization_max=organization_max,
        starts_at=starts_at,
        ends_at=ends_at,
        credit_days=credit_days,
        new_within_days=new_within_days,
        allowed_domains=domains,
        created_by_label=actor.label,
        created_at=now,
    )
    try:
        with transaction.atomic():
            campaign.save(force_insert=True)
    except IntegrityError:
        if Campaign.objects.filter(name=name).exists():
            _refuse(name=_("A campaign has this name already. Choose another one."))
        raise
    audit.record(
        actor=actor,
        action="voucher_campaign.created",
        target=campaign,
        diff={
            "kind": kind,
            "amount": money.plain_micros(amount_micros),
            "currency": currency,
            "redemptions_max": redemptions_max,
            "organization_max": organization_max,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "credit_days": credit_days,
            "new_within_days": new_within_days,
            "allowed_domains": domains,
        },
    )
    outbox.publish("vouchers.campaign_created", {"id": campaign.id, "name": name})
    return campaign


@transaction.atomic
def issue_codes(*, actor: Actor, campaign: Campaign, count: int, now: datetime) -> list[str]:
    """Make codes of a campaign and return them; only their hashes are kept, so this is the one time they are known.

    A shared campaign has one code, which takes all its redemptions; once that is void there can be another.
    Raises CampaignFull, ValidationFailed for more than CODES_AT_ONCE_MAX.
    """
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "only the operator gives credit away"
    _refuse(count=_out_of(count, CODES_AT_ONCE_MAX))
    campaign = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
    live = VoucherCode.objects.filter(campaign=campaign, voided_at=None)
    # Redemptions of void codes stay redemptions.
    spent = VoucherCode.objects.filter(campaign=campaign, voided_at__isnull=False)
    taken = spent.aggregate(sum=Sum("redeemed_count"))["sum"] or 0
    if campaign.has_ended(now):
        raise CampaignFull(_("This campaign has ended. Make a new one for more codes."))
    if campaign.kind == CampaignKind.SHARED:
        left = campaign.redemptions_max - taken
        if live.exists() or count != 1 or left < 1:
            raise CampaignFull(_("This campaign has one code. Void it to make another one."))
        redemptions_max = left
    else:
        left = campaign.redemptions_max - live.count() - taken
        if count > left:
            raise CampaignFull(left=left)
        redemptions_max = 1
    made = [codes.generate() for _number in range(count)]
    normalized = [code.replace("-", "") for code in made]
    VoucherCode.objects.bulk_create(
        [
            VoucherCode(
                campaign=campaign,
                digest=codes.digest(code),
                hint=code[-codes.HINT_LENGTH :],
                redemptions_max=redemptions_max,
                created_at=now,
            )
            for code in normalized
        ],
        batch_size=1_000,
    )
    audit.record(actor=actor, action="voucher_campaign.codes_issued", target=campaign, diff={"count": count})
    outbox.publish("vouchers.codes_issued", {"id": campaign.id, "count": count})
    return made


@transaction.atomic
def void_code(*, actor: Actor, code: VoucherCode, reason: str, now: datetime) -> None:
    """Make a code worthless from now on; what it was redeemed for stays. Doing so again changes nothing."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "only the operator voids codes"
    # The campaign first, in the order of a redemption.
    Campaign.objects.select_for_update(no_key=True).get(pk=code.campaign_id)
    code = VoucherCode.objects.select_for_update(no_key=True).get(pk=code.pk)
    if code.voided_at is not None:
        return
    code.voided_at = now
    code.save(update_fields=["voided_at"])
    audit.record(actor=actor, action="voucher_code.voided", target=code, reason=reason)
    outbox.publish("vouchers.code_voided", {"id": code.id, "campaign": code.campaign_id})


@transaction.atomic
def end_campaign(*, actor: Actor, campaign: Campaign, reason: str, now: datetime) -> Campaign:
    """End a campaign now; no code of it works any more. Doing so again changes nothing."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "only the operator ends campaigns"
    campaign = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
    if campaign.ended_at is None:
        campaign.ended_at = now
        campaign.save(update_fields=["ended_at"])
        audit.record(actor=actor, action="voucher_campaign.ended", target=campaign, reason=reason)
        outbox.publish("vouchers.campaign_ended", {"id": campaign.id, "redeemed": campaign.redeemed_count})
    return campaign


def _out_of(number: int, most: int) -> str | None:
    return None if 1 <= number <= most else _("Give a whole number from 1 to %(most)d.") % {"most": most}


def _refuse(**problems: str | Promise | None) -> None:
    if fields := [
        FieldError(path=path, code="invalid", message=str(problem))
        for path, problem in problems.items()
        if problem
    ]:
        raise ValidationFailed(fields=fields)
