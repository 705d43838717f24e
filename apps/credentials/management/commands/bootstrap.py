"""`manage.py bootstrap`: logins and keys of a development run."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.credentials import bootstrap


class Command(BaseCommand):
    """Make a staff user, the organization `demo` with an owner, an API key and an integration key, and print them."""

    help = (
        "Makes a staff user, an organization `demo` with its owner, an API key and an integration key, prints them "
        "and keeps them in $COUNTINGHOUSE_VAR/bootstrap.json. Again: the same, renewing only what no longer works. "
        "Development only."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON instead of lines for people.")

    def handle(self, *, json: bool, **_options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("bootstrap writes passwords to a file; it works in development only.")
        found = bootstrap.bootstrap(now=timezone.now())
        self.stdout.write(_as_json(found) if json else _as_lines(found))


def _as_json(found: dict[str, Any]) -> str:
    return json.dumps(found)


def _as_lines(found: dict[str, Any]) -> str:
    staff, owner = found["staff"], found["owner"]
    return "\n".join(
        [
            f"staff         {staff['email']}  {staff['password']}  TOTP secret {staff['totp_secret']}",
            f"owner         {owner['email']}  {owner['password']}",
            f"organization  {found['organization']['slug']}  {found['organization']['id']}",
            f"API key       {found['api_key']}",
            f"integration   {found['integration_key']}",
            f"kept in       {bootstrap.kept_in()}",
        ]
    )
