"""What a proof says: its checks, each with the rows that fail it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

SAMPLES = 5  # Failing rows shown for each check.


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing proved: how many rows it looked at and the rows that fail it, in words."""

    name: str
    rows: int
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.failures


def triggers_check(name: str, *triggers: str) -> Check:
    """Return the check that triggers exist and act in every session that is not a replica."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE tgname = ANY(%s) AND tgenabled = 'O'", [list(triggers)]
        )
        acting = {trigger for (trigger,) in cursor.fetchall()}
    missing = sorted(set(triggers) - acting)
    return Check(
        name=name,
        rows=len(triggers),
        failures=tuple(f"{trigger} is missing or disabled" for trigger in missing),
    )


def sql_check(name: str, count: str, failing: str) -> Check:
    """Return the check that no row comes back from `failing`; `count` says how many rows were looked at."""
    with connection.cursor() as cursor:
        cursor.execute(count)
        (rows,) = cursor.fetchone()
        cursor.execute(failing)
        found = cursor.fetchmany(SAMPLES + 1)
    failures = [str(row[0]) for row in found[:SAMPLES]]
    if len(found) > SAMPLES:
        failures.append("and more")
    return Check(name=name, rows=rows, failures=tuple(failures))


def report(command: BaseCommand, checks: Iterable[Check]) -> None:
    """Print each check; raise CommandError, which ends the process with 1, if any fails."""
    failed = 0
    for check in checks:
        mark = command.style.SUCCESS("ok  ") if check.holds else command.style.ERROR("FAIL")
        command.stdout.write(f"{mark}  {check.name} ({check.rows:,} rows)")
        for failure in check.failures:
            command.stdout.write(f"      {failure}")
        failed += not check.holds
    if failed:
        raise CommandError(f"{failed} checks failed.")
