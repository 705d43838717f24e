from datetime import datetime
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.billing import services as billing
from apps.billing.models import Pot
from apps.core.actor import system_actor
from apps.core.arguments import moment
from apps.core.errors import DomainError, ValidationFailed
from apps.core.money import is_plain, plain_micros, to_micros
from apps.organizations import services as organizations


class Command(BaseCommand):
    help = (
        "Add credit to an organization: paid credit settles what is owed first, promotional credit is a lot."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("organization", help="Slug or id.")
        parser.add_argument("amount", type=_amount, help="Major units, such as 250.00.")
        parser.add_argument("--pot", choices=Pot.values, default=Pot.PAID)
        parser.add_argument("--expires", type=moment, metavar="T", help="A whole UTC hour.")
        parser.add_argument("--priority", type=int, default=50, metavar="N", help="0 burns first, 100 last.")
        parser.add_argument("--reason", required=True, type=_reason)

    def handle(
        self,
        *,
        organization: str,
        amount: int,
        pot: str,
        expires: datetime | None,
        priority: int,
        reason: str,
        **_options: Any,
    ) -> None:
        try:
            row = organizations.resolve_organization(organization)
            grant = billing.grant_credit(
                actor=system_actor("command:grant_credit"),
                organization_id=row.id,
                amount_micros=amount,
                pot=Pot(pot),
                expires_at=expires,
                priority=priority,
                reason=reason,
                now=timezone.now(),
            )
        except ValidationFailed as error:
            raise CommandError(" ".join(field.message for field in error.fields)) from error
        except DomainError as error:
            raise CommandError(str(error)) from error
        if grant.settled_micros:
            settled = plain_micros(grant.settled_micros)
            self.stdout.write(f"{settled} {row.currency} settled what {row.slug} owed.")
        if grant.lot:
            credit = plain_micros(grant.lot.amount_micros)
            self.stdout.write(f"{row.slug} has {credit} {row.currency} more credit (lot {grant.lot.id}).")


def _amount(text: str) -> int:
    if not is_plain(text):
        raise ValueError(text)
    return to_micros(Decimal(text))


def _reason(text: str) -> str:
    if not text.strip():
        raise ValueError(text)
    return text.strip()
