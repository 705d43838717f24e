from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core import money
from apps.core.errors import DomainError
from apps.core.periods import is_label
from apps.invoices.replay import replay
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod, PeriodState


class Command(BaseCommand):
    help = (
        "Recompute a closed period from its events and say whether the invoices are identical; exit 1 if not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", required=True, metavar="SLUG")
        parser.add_argument("--period", required=True, metavar="YYYY-MM")

    def handle(self, *, organization: str, period: str, **_options: Any) -> None:
        if not is_label(period):
            raise CommandError(f"--period takes a month as YYYY-MM, not {period!r}.")
        try:
            row = organizations.resolve_organization(organization)
        except DomainError as error:
            raise CommandError(f"{organization}: {error}") from error
        closed = BillingPeriod.objects.of(row.id).filter(label=period, state=PeriodState.FINAL).first()
        if closed is None:
            raise CommandError(f"{row.slug} has no final period {period}; close it first.")
        found = replay(row, closed)
        total = f"{money.from_minor(found.total_minor, row.currency):f} {row.currency}"
        self.stdout.write(
            f"{row.slug} {period}: {found.keys} keys and {found.hours:,} hours recomputed, {total}"
        )
        if found.differences:
            lines = "\n".join(difference.describe(row.currency) for difference in found.differences)
            raise CommandError(f"Not identical:\n{lines}")
        self.stdout.write("Identical.")
