"""Lock a month of the journal, so that its export never changes, and unlock the newest again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.periods import month_start, next_label
from apps.invoices import journal
from apps.invoices.models import JournalEntry, JournalMonth
from apps.invoices.services.notes import check_reason
from apps.outbox import services as outbox

# The last place on earth where the month ends; no seller is further behind.
LAST_ZONE_BEHIND = timedelta(hours=12)


class MonthNotLockable(Conflict):
    """A month is locked once it is over everywhere, after the months before it."""

    code = "journal_month_not_lockable"


class MonthNotUnlockable(Conflict):
    """Only the newest locked month is unlocked."""

    code = "journal_month_not_unlockable"


@transaction.atomic
def lock_journal_month(*, actor: Actor, label: str, now: datetime) -> JournalMonth:
    """Number and keep what the journal of a month says; a month that is locked stays as it is.

    All that is dated up to its end and in no locked month belongs to it, so what came in late for an earlier month
    lands here. Raises MonthNotLockable.
    """
    _one_at_a_time()
    found = JournalMonth.objects.filter(label=label, unlocked_at=None).first()
    if found is not None:
        return found
    if month_start(next_label(label), "UTC") + LAST_ZONE_BEHIND > now:
        raise MonthNotLockable(_("%s is not over yet everywhere.") % label)
    entries = journal.pending_entries(label)
    _refuse_out_of_order(label, entries)
    month = JournalMonth.objects.create(label=label, locked_at=now, locked_by=actor.label)
    JournalEntry.objects.bulk_create(
        [journal.as_row(entry, month) for entry in journal.numbered(entries)], batch_size=1_000
    )
    audit.record(
        actor=actor, action="journal.locked", target=month, diff={"month": label, "entries": len(entries)}
    )
    outbox.publish("invoices.journal_locked", {"month": label, "entries": len(entries)})
    return month


def _refuse_out_of_order(label: str, entries: Sequence[journal.Entry]) -> None:
    newest = JournalMonth.objects.filter(unlocked_at=None).order_by("-label").first()
    if newest is not None and newest.label > label:
        raise MonthNotLockable(
            _("%s is locked already; what is left of this month is in a later one.") % newest.label
        )
    after = newest.label if newest else ""
    between = sorted({f"{entry.date:%Y-%m}" for entry in entries if after < f"{entry.date:%Y-%m}" < label})
    if between:
        raise MonthNotLockable(_("Lock %s first.") % between[0], earlier=between[0])


@transaction.atomic
def unlock_journal_month(*, actor: Actor, month: JournalMonth, reason: str, now: datetime) -> JournalMonth:
    """Let the newest locked month take part again in what is locked next; its entries are kept as they were.

    Raises MonthNotUnlockable.
    """
    check_reason(reason)
    _one_at_a_time()
    month = JournalMonth.objects.get(pk=month.pk)
    newest = JournalMonth.objects.filter(unlocked_at=None).order_by("-label").first()
    if newest is None or month != newest:
        raise MonthNotUnlockable(_("Only the newest locked month can be unlocked."))
    month.entries.update(is_released=True)
    month.unlocked_at, month.unlocked_by, month.reason = now, actor.label, reason.strip()
    month.save(update_fields=["unlocked_at", "unlocked_by", "reason"])
    audit.record(
        actor=actor, action="journal.unlocked", target=month, diff={"month": month.label}, reason=reason
    )
    outbox.publish("invoices.journal_unlocked", {"month": month.label})
    return month


def _one_at_a_time() -> None:
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE invoices_journalmonth IN SHARE ROW EXCLUSIVE MODE")
