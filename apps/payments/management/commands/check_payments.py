from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.payments import readiness


class Command(BaseCommand):
    help = "Say what customers need before they can pay, and ask Stripe about the key; exit 1 if anything is missing."

    def handle(self, **_options: Any) -> None:
        missing = 0
        for point in readiness.points():
            mark = self.style.SUCCESS("ok  ") if not point.problem else self.style.ERROR("FAIL")
            self.stdout.write(f"{mark}  {point.name}{f': {point.problem}' if point.problem else ''}")
            missing += bool(point.problem)
        if missing:
            raise CommandError(f"{missing} of these are missing.")
