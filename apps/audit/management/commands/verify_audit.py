from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.audit import proofs
from apps.core.proofs import report


class Command(BaseCommand):
    help = "Prove the audit log from its chains: print each check, exit 1 when one fails."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--heads",
            action="store_true",
            help="Also print each chain's length and last digest, to be kept where this database's owner cannot write.",
        )

    def handle(self, *, heads: bool, **_options: Any) -> None:
        report(self, proofs.verify())
        if heads:
            for head in proofs.heads():
                self.stdout.write(f"{head.pk}  {head.position}  {bytes(head.digest).hex()}")
