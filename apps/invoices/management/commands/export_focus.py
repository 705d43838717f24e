from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.periods import is_label
from apps.invoices import focus
from apps.organizations.models import Organization


class Command(BaseCommand):
    help = "Write the cost and usage of a month as FOCUS 1.2 CSV to standard output."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--period", required=True, metavar="YYYY-MM")
        parser.add_argument("--organization", metavar="SLUG", help="Of one organization only.")

    def handle(self, *, period: str, organization: str | None, **_options: Any) -> None:
        if not is_label(period):
            raise CommandError(f"--period takes a month as YYYY-MM, not {period!r}.")
        found = Organization.objects.filter(slug=organization).first()
        if organization and found is None:
            raise CommandError(f"There is no organization {organization!r}.")
        self.stdout.writelines(focus.as_csv(focus.month_rows(period, found.id if found else None)))
