from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.core.actor import system_actor
from apps.core.errors import DomainError
from apps.core.periods import is_label
from apps.invoices import journal
from apps.invoices import services as invoices
from apps.invoices.models import JournalMonth


class Command(BaseCommand):
    help = "Write the journal of a month for bookkeeping as CSV to standard output."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--period", required=True, metavar="YYYY-MM")
        parser.add_argument(
            "--lock", action="store_true", help="Lock the month first: it never changes again."
        )

    def handle(self, *, period: str, lock: bool, **_options: Any) -> None:
        if not is_label(period):
            raise CommandError(f"--period takes a month as YYYY-MM, not {period!r}.")
        if lock:
            try:
                invoices.lock_journal_month(
                    actor=system_actor("command:export_journal"), label=period, now=timezone.now()
                )
            except DomainError as error:
                raise CommandError(str(error)) from error
        if not JournalMonth.objects.filter(label=period, unlocked_at=None).exists():
            self.stderr.write(f"{period} is not locked: entries have no numbers yet, and can change.")
        self.stdout.writelines(journal.as_csv(period, journal.entries_of(period)))
