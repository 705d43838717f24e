"""Why a line costs what it does, one level at a time: price and arithmetic, hours, intervals, raw events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Self
from uuid import UUID

from django.utils.translation import gettext as _

from apps.billing.models import Burn, ChargeHour
from apps.core import money
from apps.core.errors import InvalidRequest, NotFound
from apps.core.http.pagination import page_of
from apps.core.moments import parse_moment
from apps.invoices import selectors
from apps.invoices.models import DocumentKind, Invoice, InvoiceLine, LineKind
from apps.invoices.selectors import Told
from apps.ledger.selectors import transfers_of
from apps.metering import selectors as metering
from apps.metering.intervals import from_ms
from apps.pricing import rating
from apps.pricing import selectors as pricing
from apps.pricing.rating import PriceTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How deep to look: all lines, one line's hours, or one hour's events, a page of resources at a time."""

    line_id: UUID | None = None
    hour: datetime | None = None
    page: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Self:
        """Return what a query string asks for, or raise InvalidRequest."""
        line, hour = parameters.get("line"), parameters.get("hour")
        try:
            line_id = None if line is None else UUID(line)
        except ValueError:
            raise InvalidRequest(_("`line` is the id of a line."), parameter="line") from None
        try:
            moment = None if hour is None else parse_moment(hour)
        except ValueError:
            moment = None
        if hour is not None and (moment is None or line_id is None):
            raise InvalidRequest(
                _("`hour` is a moment such as 2026-05-01T00:00:00Z, together with `line`."), parameter="hour"
            )
        page = {name: parameters[name] for name in ("limit", "cursor") if name in parameters}
        if page and moment is None:
            raise InvalidRequest(_("`limit` and `cursor` go with `hour`."), parameter=min(page))
        return cls(line_id=line_id, hour=moment, page=page)


def explain(invoice: Invoice, wanted: Wanted) -> dict[str, Any]:
    """Return the explanation of an invoice or credit note, of one of its lines, or of one hour of a line."""
    lines = InvoiceLine.objects.filter(invoice=invoice).select_related(
        "invoice", "key__period", "key__price__version__book", "key__override", "corrects__invoice"
    )
    is_invoice = invoice.kind == DocumentKind.INVOICE
    head = selectors.invoice_row(invoice) if is_invoice else selectors.credit_note_row(invoice)
    if wanted.line_id is None:
        return head | {"lines": _lines(invoice, list(lines.order_by("position")))}
    line = lines.filter(pk=wanted.line_id).first()
    if line is None:
        raise NotFound
    (row,) = _lines(invoice, [line])
    if wanted.hour is None:
        return head | {"line": row | {"hours": _hours(line)}}
    return head | {"line": row | {"hour": _hour(line, wanted.hour, wanted.page)}}


def _lines(document: Invoice, lines: Sequence[InvoiceLine]) -> list[dict[str, Any]]:
    terms = pricing.terms_of_keys({(line.key.price_id, line.key.override_id) for line in lines})
    corrected = {line.key_id for line in lines if line.kind == LineKind.ADJUSTMENT}
    told = selectors.told_before(document, corrected)
    return [
        row
        | _line(line, terms[line.key.price_id, line.key.override_id], told.get(line.key_id), row["amount"])
        for line, row in zip(lines, selectors.line_rows(lines), strict=True)
    ]


def _line(line: InvoiceLine, terms: PriceTerms, told: Told | None, rounded: str) -> dict[str, Any]:
    """Return the price of a line and how its amount follows from it. told: before it, of what it corrects."""
    version = line.key.price.version if line.key.price else None
    return {
        "price": pricing.terms_as_json(terms)
        | {
            "book": version.book.name if version else None,
            "version": version.number if version else None,
            "effective_from": version.effective_from if version else None,
            "effective_to": version.effective_to if version else None,
            "row": _book_row(line),
            "override": _override(line),
        },
        "arithmetic": _arithmetic(line, terms, told, rounded=rounded),
    }


def _arithmetic(line: InvoiceLine, terms: PriceTerms, told: Told | None, *, rounded: str) -> dict[str, Any]:
    """Return how the amount of a line follows from its price; of a correction, from what was invoiced before it.

    tiers: what each tier contributes to the key's whole quantity, where the price has tiers.
    """
    correction, quantity = None, line.quantity
    if told is not None:
        quantity = money.EXACT.add(told.quantity, line.quantity)
    # Less than nothing has no price; the proof of the lines tells of it.
    if told is not None and quantity >= 0:
        currency = line.invoice.currency
        total_minor = told.amount_minor + line.amount_minor
        correction = {
            "number": line.corrects.invoice.number if line.corrects else None,
            "position": line.corrects.position if line.corrects else None,
            "invoiced_quantity": money.plain(told.quantity),
            "invoiced_amount": f"{money.from_minor(told.amount_minor, currency):f}",
            "new_quantity": money.plain(quantity),
            "new_exact": _twelve(rating.rate(terms, quantity)),
            "new_amount": f"{money.from_minor(total_minor, currency):f}",
        }
    is_usage = line.kind == LineKind.USAGE
    is_told = is_usage or correction is not None
    return {
        "counted": money.plain(line.quantity),
        "divided_by": terms.unit_seconds,
        "exact": _twelve(rating.rate(terms, quantity)) if is_usage else None,
        "rounded": rounded,
        "tiers": [
            {
                "up_to": None if share.up_to is None else money.plain(share.up_to),
                "quantity": _twelve(share.quantity),
                "unit_price": None
                if share.unit_price is None
                else money.plain(share.unit_price, decimals_min=2),
                "flat_fee": money.plain(share.flat_fee, decimals_min=2),
                "amount": _twelve(share.amount),
            }
            for share in (rating.breakdown(terms, quantity) if terms.is_tiered and is_told else ())
        ],
        "correction": correction,
    }


def _twelve(exact: Fraction) -> str:
    return f"{rating.round_half_up(exact, 12):f}"


def _book_row(line: InvoiceLine) -> dict[str, Any] | None:
    """Return the row of the book as it was published, before anything that the organization has of its own."""
    price = line.key.price
    return None if price is None else {"id": price.pk} | pricing.row_as_json(price)


def _override(line: InvoiceLine) -> dict[str, Any] | None:
    """Return what the organization has instead of the row or off it, with its dates."""
    override = line.key.override
    if override is None:
        return None
    return {
        "id": override.pk,
        "percent": None if override.percent is None else money.plain(override.percent),
        "price": None if override.is_percentage else pricing.row_as_json(override),
        "effective_from": override.effective_from,
        "effective_to": override.effective_to,
    }


def _hours(line: InvoiceLine) -> list[dict[str, Any]]:
    """Return each hour of the line's key with its quantity, its amount and the cumulative sums behind it."""
    hours = []
    quantity, micros = Decimal(0), 0
    for row in ChargeHour.objects.filter(key=line.key).order_by("hour"):
        quantity = money.EXACT.add(quantity, row.quantity)
        micros += row.amount_micros
        hours.append(
            {
                "hour": row.hour,
                "quantity": money.plain(row.quantity),
                "amount": f"{money.from_micros(row.amount_micros):f}",
                "cumulative_quantity": money.plain(quantity),
                "cumulative_amount": f"{money.from_micros(micros):f}",
            }
        )
    return hours


def _hour(line: InvoiceLine, hour: datetime, page: Mapping[str, str]) -> dict[str, Any]:
    """Return what paid an hour, and a page of the resources, intervals and events that make up its quantity."""
    key = line.key
    row = ChargeHour.objects.filter(key=key, hour=hour).first()
    if row is None:
        raise NotFound
    slot = metering.hours_in_slot(key.organization_id, key.meter, key.sku, key.region, hour)
    rows, next_cursor = page_of(slot, page, ("resource__source", "resource__subject", "id"))
    burns = Burn.objects.filter(key=key, hour=hour).select_related("lot").order_by("id")
    causes = dict(
        transfers_of(key.organization_id)
        .filter(pk__in=[burn.transfer_id for burn in burns])
        .values_list("pk", "cause")
    )
    return {
        "hour": row.hour,
        "quantity": money.plain(row.quantity),
        "amount": f"{money.from_micros(row.amount_micros):f}",
        "paid_by": [
            {
                "pot": burn.lot.pot if burn.lot else "receivable",
                "credit": burn.lot_id,
                "amount": f"{money.from_micros(burn.amount_micros):f}",
                "reversed": f"{money.from_micros(burn.reversed_micros):f}",
                "transfer": causes[burn.transfer_id],
            }
            for burn in burns
        ],
        "resources": [
            {
                "resource": item.row.resource.subject,
                "source": item.row.resource.source,
                "project": item.row.project.slug if item.row.project else None,
                "api_key": item.row.credential.public_id if item.row.credential else None,
                "quantity": money.plain(item.row.quantity),
                "intervals": [
                    {
                        "start": from_ms(segment.start),
                        "end": from_ms(segment.end),
                        "gpus": money.plain(Decimal(segment.milli_gpus).scaleb(-3)),
                    }
                    for segment in item.segments
                ],
                "events": [
                    {
                        "source": event.source,
                        "id": event.event_id,
                        "type": event.type,
                        "time": event.time,
                        "started_at": event.started_at,
                        "ended_at": event.ended_at,
                        "gpus": None if event.gpus is None else money.plain(event.gpus),
                        "quantity": None if event.quantity is None else money.plain(event.quantity),
                        "received_at": event.received_at,
                    }
                    for event in item.events
                ],
                "is_cut": item.is_cut,
            }
            for item in metering.events_behind(rows)
        ],
        "has_more": next_cursor is not None,
        "next_cursor": next_cursor,
    }
