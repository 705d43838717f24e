from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError
from django.utils import timezone

from apps.core import money
from apps.core.actor import system_actor
from apps.core.errors import DomainError, NotFound
from apps.core.periods import is_label
from apps.invoices import services as invoices
from apps.invoices.services import ClosedPeriod
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod, Organization, PeriodState


class Command(BaseCommand):
    help = "Make the invoices of an ended period now, of one organization or of all."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--period", required=True, metavar="YYYY-MM")
        parser.add_argument(
            "--organization", metavar="SLUG", help="Slug or id; all organizations when absent."
        )
        parser.add_argument(
            "--finalize", action="store_true", help="Number the invoices and make them final."
        )

    def handle(self, *, period: str, organization: str | None, finalize: bool, **_options: Any) -> None:
        if not is_label(period):
            raise CommandError(f"--period takes a month as YYYY-MM, not {period!r}.")
        failures = []
        closed = 0
        for row in self._organizations(organization, period):
            try:
                result = invoices.close_period(
                    actor=system_actor("command:close_period"),
                    organization_id=row.id,
                    label=period,
                    finalize=finalize,
                    now=timezone.now(),
                )
            except NotFound as error:
                if organization is not None:
                    failures.append(f"{row.slug}: {error}")
                continue
            except DomainError as error:
                failures.append(f"{row.slug}: {error}")
                continue
            except OperationalError as error:
                failures.append(f"{row.slug}: the database did not answer in time; run it again ({error})")
                continue
            closed += 1
            self.stdout.write(f"{row.slug}: {_describe(result)}")
        if failures:
            raise CommandError("\n".join(failures))
        if not closed:
            self.stdout.write(f"No organization has a period {period}; there is nothing to close.")

    def _organizations(self, reference: str | None, period: str) -> list[Organization]:
        if reference is not None:
            try:
                return [organizations.resolve_organization(reference)]
            except DomainError as error:
                raise CommandError(f"{reference}: {error}") from error
        # A deleted organization is owed the invoice of what it used before.
        left = BillingPeriod.objects.filter(label=period).exclude(state=PeriodState.FINAL)
        rows = Organization.objects.existing() | Organization.objects.filter(
            pk__in=left.values("organization")
        )
        return list(rows.order_by("slug"))


def _describe(closed: ClosedPeriod) -> str:
    if closed.invoice is None:
        return "no usage, no invoice"
    invoice = closed.invoice
    total = f"{money.from_minor(invoice.total_minor, invoice.currency):f} {invoice.currency}"
    return f"{invoice.number or 'draft'}  {total}  {invoice.get_state_display()}"
