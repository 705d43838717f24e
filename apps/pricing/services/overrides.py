"""What one organization pays instead of its book: a price of its own, or else one percentage."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.core.errors import FieldError, ValidationFailed
from apps.core.money import EXACT, plain
from apps.core.periods import moment_in_words
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.pricing import selectors
from apps.pricing.models import PERCENT_MAX, PriceOverride
from apps.pricing.rows import PriceRow, row_of
from apps.pricing.services.books import (
    EffectiveDateRefused,
    check_after,
    check_codes,
    check_unrated,
    check_whole_hour,
)

PERCENT_DECIMALS = 4


@transaction.atomic
def override_price(
    *,
    actor: Actor,
    organization: Organization,
    row: PriceRow,
    effective_from: datetime,
    effective_to: datetime | None = None,
    now: datetime,
) -> PriceOverride:
    """Give an organization a price of its own for what the row names, from a whole UTC hour on.

    It is in the organization's currency and wins over every row of its book that it matches, and over its percentage.
    One for the same target that is in force there ends there.
    Raises ValidationFailed for codes that do not exist, EffectiveDateRefused.
    """
    check_codes([row])
    return _override(
        actor,
        organization,
        PriceOverride(currency=organization.currency, **row.as_columns()),
        effective_from,
        effective_to,
        now,
    )


@transaction.atomic
def override_by_percent(
    *,
    actor: Actor,
    organization: Organization,
    percent: Decimal,
    effective_from: datetime,
    effective_to: datetime | None = None,
    now: datetime,
) -> PriceOverride:
    """Change every price of an organization's book by a percentage, from a whole UTC hour on.

    percent: -20 makes prices a fifth lower, 10 a tenth higher; up to four decimals. A percentage in force there ends
    there. Prices are changed as `rating.change_by_percent` does it; those of the organization's own stay.
    Raises ValidationFailed, EffectiveDateRefused.
    """
    within = -100 <= percent <= PERCENT_MAX and percent != 0
    if not within or percent != percent.quantize(Decimal(1).scaleb(-PERCENT_DECIMALS), context=EXACT):
        message = _("A percentage lies between -100 and 100, is not 0, and has up to four decimals.")
        raise ValidationFailed(fields=[FieldError(path="percent", code="invalid", message=message)])
    override = PriceOverride(currency=organization.currency, percent=percent)
    return _override(actor, organization, override, effective_from, effective_to, now)


@transaction.atomic
def end_override(
    *, actor: Actor, override: PriceOverride, effective_to: datetime, now: datetime
) -> PriceOverride:
    """End an override at a whole UTC hour, once; from then on the book applies again. Raises EffectiveDateRefused."""
    selectors.exclude_charging()
    override = PriceOverride.objects.select_for_update(no_key=True).get(pk=override.pk)
    if override.effective_to is not None:
        ends = moment_in_words(override.effective_to)
        raise EffectiveDateRefused(_("This override ends at %s already.") % ends)
    check_unrated(effective_to, organization_id=override.organization_id)
    if effective_to <= override.effective_from:
        raise EffectiveDateRefused(_("An override ends after it begins."))
    override.effective_to = effective_to
    override.save(update_fields=["effective_to"])
    diff = {"effective_to": [None, effective_to]}
    audit.record(actor=actor, action="price_override.ended", target=override, diff=diff)
    _publish("pricing.override_ended", override, now)
    return override


def _override(
    actor: Actor,
    organization: Organization,
    override: PriceOverride,
    effective_from: datetime,
    effective_to: datetime | None,
    now: datetime,
) -> PriceOverride:
    selectors.exclude_charging()
    check_unrated(effective_from, organization_id=organization.pk)
    if effective_to is not None:
        check_whole_hour(effective_to)
        if effective_to <= effective_from:
            raise EffectiveDateRefused(_("An override ends after it begins."))
    same_target = PriceOverride.objects.filter(
        Q(meter=override.meter_id), organization=organization, sku=override.sku, region=override.region
    )
    latest = same_target.select_for_update(no_key=True).order_by("-effective_from").first()
    if latest is not None:
        check_after(str(latest), latest.effective_from, latest.effective_to, effective_from)
        if latest.effective_to is None:
            latest.effective_to = effective_from
            latest.save(update_fields=["effective_to"])
        if latest.effective_to == effective_from and _terms(latest) == _terms(override):
            override.key_id = latest.key_id
    override.organization = organization
    override.effective_from, override.effective_to, override.created_at = effective_from, effective_to, now
    override.save(force_insert=True)
    diff = {
        "terms": [latest and _described(latest), _described(override)],
        "effective_from": effective_from,
        "effective_to": effective_to,
    }
    audit.record(actor=actor, action="price_override.created", target=override, diff=diff)
    _publish("pricing.override_created", override, now)
    return override


def _terms(override: PriceOverride) -> tuple[str, Decimal | None, PriceRow | None]:
    if override.is_percentage:
        return "", override.percent, None
    return override.currency, None, row_of(override)


def _described(override: PriceOverride) -> str | dict[str, object]:
    if override.percent is not None:
        return f"{plain(override.percent)} %"
    return row_of(override).as_json()


def _publish(event_type: str, override: PriceOverride, now: datetime) -> None:
    facts = {
        "override_id": str(override.pk),
        "terms": _described(override),
        "effective_from": override.effective_from.isoformat(),
        "effective_to": override.effective_to.isoformat() if override.effective_to else None,
        "changed_at": now.isoformat(),
    }
    outbox.publish(event_type, facts, organization_id=override.organization_id)
