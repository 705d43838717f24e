from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError
from django.utils import timezone

from apps.billing import services as billing
from apps.core.arguments import moment
from apps.core.money import plain_micros
from apps.organizations.models import Organization

_BUSY = "the database did not answer in time; run the command again, it goes on where it stopped"


class Command(BaseCommand):
    help = "Meter and charge all usage now, to completion."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--until", type=moment, metavar="T", help="Count usage up to this moment (default: now)."
        )

    def handle(self, *, until: datetime | None, **_options: Any) -> None:
        now = timezone.now()
        if until is not None and until > now:
            raise CommandError("--until lies in the future; usage is counted up to now at the latest.")
        hours = 0
        for organization in Organization.objects.existing().order_by("slug"):
            try:
                step = billing.meter_and_charge(organization_id=organization.id, until=until or now, now=now)
            except OperationalError as error:
                raise CommandError(f"{organization.slug}: {_BUSY} ({error})") from error
            hours += step.hours
            if step.hours:
                amount = plain_micros(step.micros)
                self.stdout.write(
                    f"{organization.slug}: {step.hours:,} hours charged, {amount} {organization.currency}"
                )
        self.stdout.write(
            f"Everything up to {until or now:%Y-%m-%d %H:%M:%S} UTC is counted: {hours:,} hours changed."
        )
