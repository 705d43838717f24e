"""`manage.py import_price_book`: prices from a file."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.core.actor import system_actor
from apps.core.arguments import moment
from apps.core.errors import DomainError, ValidationFailed
from apps.pricing import files, selectors, services

ERRORS_SHOWN_MAX = 50


class Command(BaseCommand):
    """Import a price book from our JSON or from a CSV in SkyPilot catalog columns."""

    help = "Import a price book from our JSON or a SkyPilot catalog CSV; the same again changes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what API.md promises."""
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument("--name", default="", help="the book's name; a CSV needs it")
        parser.add_argument("--currency", default="", help="of a CSV; default: DEFAULT_CURRENCY")
        parser.add_argument(
            "--effective-from",
            type=moment,
            metavar="T",
            help="whole UTC hour from which they apply; default of a first version: 1970-01-01T00:00:00Z",
        )
        parser.add_argument("--publish", action="store_true", help="put the prices in force")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="print what would change in the version in force; write nothing",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Read the file, then import it in one transaction, or say what that would change."""
        path: Path = options["file"]
        try:
            content = self._read(path, name=options["name"], currency=options["currency"])
            if options["dry_run"]:
                preview = services.preview_import(
                    content=content, effective_from=options["effective_from"], now=timezone.now()
                )
                for line in preview.lines():
                    self.stdout.write(line)
                return
            result = services.import_price_book(
                actor=system_actor("import_price_book"),
                content=content,
                effective_from=options["effective_from"],
                publish=options["publish"],
                now=timezone.now(),
            )
        except ValidationFailed as error:
            raise CommandError(_described(path, error)) from error
        except DomainError as error:
            raise CommandError(f"{path}: {error}") from error
        for message in result.messages:
            self.stdout.write(message)

    def _read(self, path: Path, *, name: str, currency: str) -> files.BookContent:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CommandError(_("%s is not text in UTF-8.") % path) from error
        return files.read_file(
            text,
            is_csv=path.suffix.lower() == ".csv",
            meters=selectors.meter_codes(),
            name=name,
            currency=currency,
            currency_default=settings.DEFAULT_CURRENCY,
        )


def _described(path: Path, error: ValidationFailed) -> str:
    lines = [f"{path}: {error}"]
    lines += [f"  {field.path}: {field.message}" for field in error.fields[:ERRORS_SHOWN_MAX]]
    if len(error.fields) > ERRORS_SHOWN_MAX:
        lines.append(_("  … and %d more.") % (len(error.fields) - ERRORS_SHOWN_MAX))
    return "\n".join(lines)
