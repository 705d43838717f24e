"""Redeeming a code: once, for whom it is meant, with one answer to everybody else."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.billing import services as billing
from apps.billing.models import Pot
from apps.core import money
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, NotFound
from apps.core.http.address import limiting_address
from apps.core.periods import HOUR, floor_hour, is_whole_hour
from apps.credentials.models import ApiKey
from apps.identity import selectors as identity
from apps.ledger import services as ledger
from apps.limits import services as limits
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.vouchers import codes
from apps.vouchers.models import Campaign, Redemption, VoucherCode

SOURCE = "voucher"


class VoucherInvalid(NotFound):
    """The code is wrong, used up, over, or for others: one answer, so that a guesser learns nothing."""

    code = "voucher_invalid"
    default_message = gettext_lazy(
        "This code cannot be redeemed. It may be mistyped, used up, over, or meant for somebody else."
    )


class AlreadyRedeemed(Conflict):
    """This organization has redeemed this very code."""

    code = "voucher_already_redeemed"
    default_message = gettext_lazy("You have redeemed this code already; its credit is in your account.")


def count_guess(*, actor: Actor) -> None:
    """Count one code tried by an account from its address, or raise TooManyGuesses.

    Interfaces call it before `redeem` and `check_code`, outside of the transaction that a wrong code rolls back.
    """
    limits.guard(limits.VOUCHER, f"{actor.kind}:{actor.id}", limiting_address(actor.address))


@transaction.atomic
def redeem(*, actor: Actor, organization: Organization, code: str, now: datetime) -> Redemption:
    """Turn a code into promotional credit of an organization.

    Raises VoucherInvalid; AlreadyRedeemed for the organization's own code; CurrencyMismatch for one that would do but
    for its currency.
    """
    found = _find(code)
    # The wallet before anything else that money depends on; then the campaign, which serialises its redemptions.
    ledger.open_book(organization_id=organization.id, currency=organization.currency, now=now)
    campaign = Campaign.objects.select_for_update(no_key=True).get(pk=found.campaign_id)
    found = VoucherCode.objects.select_for_update(no_key=True).get(pk=found.pk)
    own = _check(actor, organization, campaign, found, now)
    lot = billing.grant_credit(
        actor=actor,
        organization_id=organization.id,
        amount_micros=campaign.amount_micros,
        pot=Pot.PROMO,
        expires_at=expiry_of(campaign, now),
        source=SOURCE,
        reference=str(campaign.id),
        reason=campaign.name,
        now=now,
    ).lot
    assert lot is not None, "promotional credit always becomes a lot"
    made = Redemption.objects.create(
        organization=organization,
        campaign=campaign,
        code=found,
        lot=lot,
        ordinal=own + 1,
        redeemed_by_id=_person(actor),
        redeemed_by_label=actor.label,
        created_at=now,
    )
    for counted in (campaign, found):
        counted.redeemed_count += 1
        counted.save(update_fields=["redeemed_count"])
    audit.record(
        actor=actor,
        action="voucher.redeemed",
        target=made,
        diff={"campaign": campaign.name, "code": f"…{found.hint}", "lot": lot.id},
    )
    outbox.publish(
        "vouchers.voucher_redeemed",
        {
            "id": made.id,
            "campaign": campaign.id,
            "lot": lot.id,
            "amount": money.plain_micros(campaign.amount_micros),
            "currency": campaign.currency,
        },
        organization_id=organization.id,
    )
    return made


def check_code(*, actor: Actor, organization: Organization, code: str, now: datetime) -> VoucherCode:
    """Return the code if the organization could redeem it now, with its campaign; raises what `redeem` would."""
    found = _find(code)
    _check(actor, organization, found.campaign, found, now)
    return found


def expiry_of(campaign: Campaign, now: datetime) -> datetime | None:
    """Return when credit redeemed now ends: on the first whole hour after its days, or never."""
    if campaign.credit_days is None:
        return None
    end = now + timedelta(days=campaign.credit_days)
    return end if is_whole_hour(end) else floor_hour(end) + HOUR


def _find(typed: str) -> VoucherCode:
    code = codes.normalize(typed)
    if code is None:
        raise VoucherInvalid
    found = VoucherCode.objects.select_related("campaign").filter(digest=codes.digest(code)).first()
    if found is None:
        raise VoucherInvalid
    return found


def _check(
    actor: Actor, organization: Organization, campaign: Campaign, code: VoucherCode, now: datetime
) -> int:
    """Return how often the organization has redeemed the campaign, or refuse."""
    own = Redemption.objects.filter(campaign=campaign, organization=organization)
    if own.filter(code=code).exists():
        raise AlreadyRedeemed
    count = own.count()
    usable = VoucherCode.objects.usable().filter(pk=code.pk)
    if (
        not campaign.is_open(now)
        or campaign.redeemed_count >= campaign.redemptions_max
        or count >= campaign.organization_max
        or not usable.exists()
        or not _is_meant_for(actor, organization, campaign, now)
    ):
        raise VoucherInvalid
    if campaign.currency != organization.currency:
        # Whoever learns this could have redeemed the code with another organization.
        raise ledger.CurrencyMismatch(
            _("This code gives %(given)s; this organization is billed in %(billed)s.")
            % {"given": campaign.currency, "billed": organization.currency},
            currency=organization.currency,
        )
    return count


def _is_meant_for(actor: Actor, organization: Organization, campaign: Campaign, now: datetime) -> bool:
    if campaign.new_within_days is not None:
        oldest = now - timedelta(days=campaign.new_within_days)
        if organization.created_at < oldest:
            return False
    if not campaign.allowed_domains:
        return True
    person = _person(actor)
    addresses = identity.verified_addresses(person) if person else []
    return any(address.rpartition("@")[2] in campaign.allowed_domains for address in addresses)


def _person(actor: Actor) -> UUID | None:
    """Return the id of the person who redeems; for a key that of its maker, if a person made it."""
    if actor.kind == ActorKind.USER:
        return actor.person_id
    if actor.credential_id is None:
        return None
    keys = ApiKey.objects.filter(pk=actor.credential_id, created_by__isnull=False)
    return keys.values_list("created_by_id", flat=True).first()
