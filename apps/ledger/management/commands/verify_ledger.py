from typing import Any

from django.core.management.base import BaseCommand

from apps.core.proofs import report
from apps.ledger import proofs


class Command(BaseCommand):
    help = "Prove the books from their transfers: print each check, exit 1 when one fails."

    def handle(self, **_options: Any) -> None:
        report(self, proofs.verify())
