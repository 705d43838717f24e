"""From differences to transfers: new usage burns lots in their order, corrected usage reverses the newest burns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from uuid import UUID

from django.db.models import F
from django.utils.translation import gettext as _

from apps.billing import selectors
from apps.billing.burning import burn
from apps.billing.charging import Delta
from apps.billing.models import BillingProgress, Burn, ChargeKey, CreditLot, Pot
from apps.billing.services.copying import NewBurn, insert_burns
from apps.billing.services.credit import expires_to, open_lot
from apps.billing.services.invoicing import unbilled_debt_micros
from apps.core.periods import floor_hour
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Book, Posting, TransferKind


def take(book: Book, deltas: Sequence[Delta], *, now: datetime) -> None:
    """Post what hours cost more: from the lots in burn order, then onto the receivable."""
    if not deltas:
        return
    lots = selectors.lot_states(book.wallet.organization_id)
    postings: list[Posting] = []
    burns: list[NewBurn] = []
    owing: dict[UUID, ChargeKey] = {}
    for delta in deltas:
        key = delta.plan.key
        for line, (lot, micros) in enumerate(
            burn(lots, hour=delta.hour, amount_micros=delta.micros), start=1
        ):
            postings.append(
                Posting(
                    debit_id=lot.account_id if lot else book[AccountKind.RECEIVABLE],
                    credit_id=book[AccountKind.REVENUE],
                    amount_micros=micros,
                    kind=TransferKind.USAGE,
                    cause=_cause("usage", delta, line),
                    occurred_at=delta.hour,
                    reference=str(key.id),
                )
            )
            burns.append(
                NewBurn(
                    key_id=key.id,
                    hour=delta.hour,
                    lot_id=lot.id if lot else None,
                    amount_micros=micros,
                )
            )
            if lot is None:
                key.receivable_micros += micros
                owing[key.id] = key
    transfer_ids = ledger.post_transfers(book=book, postings=postings, now=now)
    insert_burns(book.wallet.organization_id, burns, transfer_ids)
    ChargeKey.objects.bulk_update(owing.values(), ["receivable_micros"])


def give_back(book: Book, deltas: Sequence[Delta], *, now: datetime) -> None:
    """Post what hours cost less: the newest burns of each key return to where they came from.

    A burn from a lot returns to the lot. A burn onto the receivable reduces it while nobody has paid or asked for it;
    what was paid ahead, or stays asked for by a final invoice, becomes one lot of paid credit.
    """
    if not deltas:
        return
    returns = _Returns(
        book=book, unbilled_debt_micros=unbilled_debt_micros(organization_id=book.wallet.organization_id)
    )
    ordered = sorted(deltas, key=lambda delta: (str(delta.plan.key.id), delta.hour))
    for _key_id, of_key in groupby(ordered, key=lambda delta: delta.plan.key.id):
        returns.add_key(list(of_key))
    returns.write(now=now)


@dataclass(slots=True, kw_only=True)
class _Returns:
    """What comes back in one step, gathered so that each table is written once."""

    book: Book
    unbilled_debt_micros: int
    postings: list[Posting] = field(default_factory=list)
    burns: dict[int, Burn] = field(default_factory=dict)
    keys: dict[UUID, ChargeKey] = field(default_factory=dict)
    ahead_micros: int = 0
    credit_micros: int = 0

    def add_key(self, deltas: Sequence[Delta]) -> None:
        key = deltas[0].plan.key
        shares = self._newest_shares(key)
        left_over: tuple[Burn, int] | None = None
        for delta in deltas:
            wanted, line = -delta.micros, 0
            while wanted:
                row, open_micros = left_over or next(shares)
                micros = min(wanted, open_micros)
                left_over = (row, open_micros - micros) if open_micros > micros else None
                row.reversed_micros += micros
                self.burns[row.pk] = row
                wanted -= micros
                line += 1
                if row.lot is not None:
                    self._to_lot(delta, row.lot, micros, line)
                else:
                    self._from_receivable(delta, key, micros, line)

    def _newest_shares(self, key: ChargeKey) -> Iterator[tuple[Burn, int]]:
        """Yield the burns of a key that can come back, newest first, with what is left of each."""
        rows = Burn.objects.filter(key=key, reversed_micros__lt=F("amount_micros"))
        for row in rows.select_related("lot").order_by("-id").iterator(chunk_size=500):
            yield row, row.amount_micros - row.reversed_micros
        raise AssertionError("a key never gives back more than was burnt for it")

    def _to_lot(self, delta: Delta, lot: CreditLot, micros: int, line: int) -> None:
        cause = _cause("usage-reversal", delta, line)
        self._reverse(delta, lot.account_id, micros, cause)
        if lot.expired_at is not None:
            assert lot.expires_at is not None, "only a lot with an end has expired"
            # Expiry is final: what comes back after it expires again at once.
            self.postings.append(
                Posting(
                    debit_id=lot.account_id,
                    credit_id=self.book[expires_to(lot)],
                    amount_micros=micros,
                    kind=TransferKind.EXPIRY,
                    cause=f"expiry:{cause}",
                    occurred_at=lot.expires_at,
                )
            )

    def _from_receivable(self, delta: Delta, key: ChargeKey, micros: int, line: int) -> None:
        self.keys[key.id] = key
        unbilled = min(micros, key.receivable_micros - key.billed_receivable_micros)
        key.receivable_micros -= micros
        key.billed_receivable_micros -= micros - unbilled
        unpaid = min(unbilled, self.unbilled_debt_micros)
        if unpaid:
            cause = _cause("usage-reversal", delta, line)
            self._reverse(delta, self.book[AccountKind.RECEIVABLE], unpaid, cause)
            self.unbilled_debt_micros -= unpaid
        self.ahead_micros += unbilled - unpaid
        self.credit_micros += micros - unpaid

    def _reverse(self, delta: Delta, account_id: UUID, micros: int, cause: str) -> None:
        self.postings.append(
            Posting(
                debit_id=self.book[AccountKind.REVENUE],
                credit_id=account_id,
                amount_micros=micros,
                kind=TransferKind.USAGE_REVERSAL,
                cause=cause,
                occurred_at=delta.hour,
                reference=str(delta.plan.key.id),
            )
        )

    def write(self, *, now: datetime) -> None:
        ledger.post_transfers(book=self.book, postings=self.postings, now=now)
        if self.credit_micros:
            open_lot(
                book=self.book,
                pot=Pot.PAID,
                amount_micros=self.credit_micros,
                effective_at=floor_hour(now),
                funded_by=AccountKind.REVENUE,
                kind=TransferKind.USAGE_REVERSAL,
                source="usage_reversal",
                reason=_("Usage that was billed or paid for turned out smaller."),
                now=now,
            )
        if self.ahead_micros:
            BillingProgress.objects.filter(organization_id=self.book.wallet.organization_id).update(
                unbilled_receipts_micros=F("unbilled_receipts_micros") - self.ahead_micros
            )
        Burn.objects.bulk_update(self.burns.values(), ["reversed_micros"], batch_size=1_000)
        ChargeKey.objects.bulk_update(self.keys.values(), ["receivable_micros", "billed_receivable_micros"])


def _cause(kind: str, delta: Delta, line: int) -> str:
    revision = delta.plan.hours[delta.hour].revision
    return f"{kind}:{delta.plan.key.id}:{delta.hour:%Y%m%dT%H%M}:{revision}:{line}"
