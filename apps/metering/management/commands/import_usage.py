"""`import_usage`: finished usage from a CSV file, through the same ingestion as the API."""

from __future__ import annotations

import csv
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import batched
from pathlib import Path
from typing import IO, Any, NamedTuple

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.core.actor import Actor, system_actor
from apps.core.errors import DomainError
from apps.metering import events
from apps.metering import services as metering
from apps.metering.events import Malformed, Received
from apps.metering.models import EventType
from apps.organizations import services as organizations
from apps.organizations.models import OrganizationStatus, Project
from apps.organizations.selectors import find_organizations

COLUMNS = ("resource_id", "organization", "project", "sku", "region", "gpus", "started_at", "ended_at")
SOURCE = "import:usage"
ERRORS_SHOWN_MAX = 50
_BAR_WIDTH = 32


class _Row(NamedTuple):
    line: int
    fields: dict[str, str]

    @property
    def owner(self) -> tuple[str, str]:
        """The names of the organization and the project."""
        return self.fields["organization"], self.fields["project"]


class _Failure(NamedTuple):
    line: int
    message: str


class Command(BaseCommand):
    help = (
        "Import finished usage from a CSV file with the columns resource_id, organization, project, sku, region, gpus,"
        " started_at, ended_at. Rows that were imported before change nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE.csv", type=Path)
        parser.add_argument(
            "--create-organizations", action="store_true", help="Make organizations that do not exist yet."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        now = timezone.now()
        actor = system_actor("import_usage")
        rows, failures = _read(options["file"])
        impossible = _prepare(rows, actor=actor, create=options["create_organizations"], now=now)
        accepted = duplicates = done = 0
        for batch in batched(rows, settings.USAGE_BATCH_EVENTS_MAX):
            outcome = metering.ingest_events(
                received=[_event(row) for row in batch], integration_id=None, backfill=True, now=now
            )
            accepted += outcome.accepted
            duplicates += outcome.duplicates
            for error in outcome.errors:
                row = batch[error.index]
                failures.append(_Failure(row.line, impossible.get(row.owner, error.message)))
            done += len(batch)
            self._show_progress(done, len(rows))
        self._report(accepted, duplicates, failures)

    def _show_progress(self, done: int, total: int) -> None:
        if not self.stdout.isatty():
            return
        filled = _BAR_WIDTH * done // total
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        self.stdout.write(f"\r{bar} {done:,} of {total:,} rows", ending="\n" if done == total else "")
        self.stdout.flush()

    def _report(self, accepted: int, duplicates: int, failures: Sequence[_Failure]) -> None:
        for failure in sorted(failures)[:ERRORS_SHOWN_MAX]:
            self.stderr.write(f"Line {failure.line}: {failure.message}")
        if len(failures) > ERRORS_SHOWN_MAX:
            self.stderr.write(f"… and {len(failures) - ERRORS_SHOWN_MAX:,} more.")
        if accepted or not duplicates:
            self.stdout.write(f"Imported {accepted:,} rows; {duplicates:,} were there already.")
        else:
            self.stdout.write(f"Nothing new: all {duplicates:,} rows were there already.")
        if failures:
            raise CommandError(
                f"{len(failures):,} rows were rejected; the others are imported.", returncode=1
            )


def _read(path: Path) -> tuple[list[_Row], list[_Failure]]:
    """Return the rows of the file with their line numbers, and those that have the wrong number of columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _parse(file)
    except OSError as error:
        raise CommandError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8 text.") from error
    except csv.Error as error:
        raise CommandError(f"{path} is no CSV file: {error}.") from error


def _parse(file: IO[str]) -> tuple[list[_Row], list[_Failure]]:
    reader = csv.reader(file, strict=True)
    header = [name.strip() for name in next(reader, [])]
    if missing := [name for name in COLUMNS if name not in header]:
        raise CommandError(
            f"The first line must name the columns {','.join(COLUMNS)}; missing: {', '.join(missing)}."
        )
    rows: list[_Row] = []
    failures: list[_Failure] = []
    for values in reader:
        if not values:
            continue
        if len(values) != len(header):
            failures.append(
                _Failure(reader.line_num, f"has {len(values)} columns; the first line has {len(header)}.")
            )
            continue
        fields = {name: value.strip() for name, value in zip(header, values, strict=True) if name in COLUMNS}
        rows.append(_Row(reader.line_num, fields))
    return rows, failures


def _prepare(
    rows: Iterable[_Row], *, actor: Actor, create: bool, now: datetime
) -> dict[tuple[str, str], str]:
    """Make the projects that the rows name, and the organizations if asked; return why some cannot be made.

    Rows whose organization is still unknown are left to ingestion, which says so for each of them.
    """
    owners = dict.fromkeys(row.owner for row in rows)
    known = find_organizations({name for name, _project in owners})
    impossible: dict[tuple[str, str], str] = {}
    if create:
        for name in dict.fromkeys(name for name, _project in owners if name and name not in known):
            try:
                known[name] = organizations.create_organization(actor=actor, name=name, slug=name, now=now)
            except DomainError as error:
                reason = f"organization {name!r} cannot be made: {_reason(error)}"
                impossible |= {owner: reason for owner in owners if owner[0] == name}
    existing = {
        (organization_id, reference)
        for organization_id, slug, pk in Project.objects.filter(
            organization__in={organization.pk for organization in known.values()}
        ).values_list("organization_id", "slug", "pk")
        for reference in (slug, str(pk))
    }
    for name, project in owners:
        organization = known.get(name)
        if not project or organization is None or organization.status == OrganizationStatus.DELETED:
            continue
        if (organization.pk, project) in existing:
            continue
        try:
            organizations.create_project(
                actor=actor.within(organization.pk), organization=organization, slug=project, now=now
            )
        except DomainError as error:
            impossible[name, project] = f"project {project!r} cannot be made: {_reason(error)}"
        existing.add((organization.pk, project))
    return impossible


def _reason(error: DomainError) -> str:
    """Return what is wrong with a field, rather than that some field is wrong."""
    fields = error.details.get("fields") or []
    return " ".join(field["message"] for field in fields) or str(error)


def _event(row: _Row) -> Received | Malformed:
    """Return a row as the event it stands for; its id is the same whenever the row is imported."""
    fields = row.fields
    data: dict[str, Any] = {
        name: fields[name]
        for name in ("organization", "project", "sku", "region", "gpus", "started_at", "ended_at")
        if fields[name]
    }
    if not fields["resource_id"]:
        return Malformed(id=None, message="resource_id must not be empty.")
    return events.build(
        id=f"{fields['resource_id']}/{fields['started_at']}",
        source=SOURCE,
        type=EventType.RECORDED,
        subject=fields["resource_id"],
        data=data,
    )
