"""The migrated database that every test database is a copy of.

Migrating an empty database takes longer than most of what a developer runs after it, and each worker of a parallel
run would do it again. So the first run after a change of a migration makes a template, and the others copy it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.db import connection

# Rows that migrations made (content types, permissions, catalogue seeds), copied to put them back after a test.
SEEDS = "seeds"

PREFIX = "countinghouse_template_"
# Any number, the same in every process.
LOCK = 7_216_634


def make_template() -> str:
    """Return the name of a migrated database that nobody is connected to, making it where there is none."""
    name = PREFIX + _digest()
    with connection.creation._nodb_cursor() as cursor:
        cursor.execute("SET lock_timeout = 0")  # Whoever comes second waits for all migrations.
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [PREFIX])
        found = {database for (database,) in cursor.fetchall()}
        if name not in found:
            for stale in found:
                cursor.execute(f'DROP DATABASE "{stale}" WITH (FORCE)')
            unfinished = _migrated(name)
            cursor.execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{name}"')
        cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
    return name


def tables() -> list[str]:
    """Return the tables that tests write to."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tablename FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'django_migrations' ORDER BY 1"
        )
        return [name for (name,) in cursor.fetchall()]


def _migrated(name: str) -> str:
    own = settings.DATABASES["default"]["NAME"]
    test = settings.DATABASES["default"]["TEST"]
    test_name = test["NAME"]
    test["NAME"] = f"{name}_unfinished"
    try:
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        _keep_seeds()
        _keep_from_statistics()
        connection.close()
    finally:
        test["NAME"] = test_name
        settings.DATABASES["default"]["NAME"] = connection.settings_dict["NAME"] = own
    return f"{name}_unfinished"


def _keep_seeds() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {SEEDS}")
        for table in tables():
            cursor.execute(f'SELECT EXISTS (SELECT FROM public."{table}")')
            if cursor.fetchone()[0]:
                cursor.execute(f'CREATE TABLE {SEEDS}."{table}" AS TABLE public."{table}"')


def _keep_from_statistics() -> None:
    """Leave PostgreSQL without statistics of any table.

    Autovacuum would take them at any time, most often of tables whose rows were all rolled back. What a test then
    inserts is planned for as if it were a row, in its one transaction to the end: seconds become minutes, and plans
    differ from run to run.
    """
    with connection.cursor() as cursor:
        for table in tables():
            cursor.execute(f'ALTER TABLE public."{table}" SET (autovacuum_enabled = false)')


def _digest() -> str:
    """Return a name for what this file and the migrations of every app say, and the files that they read."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for app in apps.get_app_configs():
        for folder in ("migrations", "data"):
            for path in sorted(Path(app.path, folder).rglob("*")):
                if path.is_file() and path.suffix != ".pyc":
                    digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
