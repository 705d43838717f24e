from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.ledger import proofs


class Command(BaseCommand):
    help = "Prove the books from their transfers: print each check, exit 1 when one fails."

    def handle(self, **_options: Any) -> None:
        failed = 0
        for check in proofs.verify():
            mark = self.style.SUCCESS("ok  ") if check.holds else self.style.ERROR("FAIL")
            self.stdout.write(f"{mark}  {check.name} ({check.rows:,} rows)")
            for failure in check.failures:
                self.stdout.write(f"      {failure}")
            failed += not check.holds
        if failed:
            raise CommandError(f"{failed} checks failed.")
