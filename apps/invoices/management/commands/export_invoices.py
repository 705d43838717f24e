import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import DomainError
from apps.core.periods import is_label
from apps.core.snapshots import snapshot
from apps.invoices import export
from apps.invoices.bundle import Bundle, write_bundle


class Command(BaseCommand):
    help = "Write the final invoices of a period to standard output."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--period", required=True, metavar="YYYY-MM")
        parser.add_argument("--format", choices=["json", "csv"], default="json")
        parser.add_argument(
            "--bundle",
            type=Path,
            metavar="FILE.zip",
            help="Write a file with every row behind the documents, and the program that recomputes them.",
        )

    def handle(self, *, period: str, format: str, bundle: Path | None, **_options: Any) -> None:  # noqa: A002 (the option's name)
        if not is_label(period):
            raise CommandError(f"--period takes a month as YYYY-MM, not {period!r}.")
        if bundle is not None:
            written = _write(period, bundle)
            self.stdout.write(
                f"{written.documents} documents in {bundle}; unzip verify.py from it and run: python verify.py {bundle}"
            )
            self.stdout.write(
                f"SHA-256 of its manifest, which names every document and file: {written.sha256}"
            )
            return
        rows = export.final_invoices(period)
        if format == "csv":
            export.write_csv(rows, self.stdout)
        else:
            self.stdout.write(json.dumps(list(rows), indent=1, ensure_ascii=False))


def _write(period: str, path: Path) -> Bundle:
    """Write a bundle beside its place and put it there once it is whole; what was there before stays until then."""
    part = path.with_name(f"{path.name}.part")
    try:
        with snapshot(), part.open("wb") as out:
            written = write_bundle(period, out)
        part.replace(path)
    except DomainError as error:
        raise CommandError(str(error)) from error
    finally:
        part.unlink(missing_ok=True)
    return written
