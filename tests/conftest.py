"""What every test stands on: the database's settings and cleaning, jobs that wait for the test, requests."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase

# Rows that migrations made (content types, permissions, catalogue seeds), copied once per test database.
SEEDS = "seeds"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped anything where everything must run, as in `.ci/run`."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("COUNTINGHOUSE_SKIPS_FAIL") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure() -> None:
    # Each of many test users would take a third of a second with the real hasher.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    # Tests survive no crash of the server, so they need not wait for its disk.
    settings.DATABASES["default"]["OPTIONS"]["options"] += " -c synchronous_commit=off"


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {SEEDS}")
        for table in _tables(cursor):
            cursor.execute(f'SELECT EXISTS (SELECT FROM public."{table}")')
            if cursor.fetchone()[0]:
                cursor.execute(f'CREATE TABLE {SEEDS}."{table}" AS TABLE public."{table}"')


def restore_database() -> None:
    """Bring every table back to what migrations left, append-only ones too.

    As superuser with `session_replication_role = replica`, under which no trigger and no foreign key acts. DELETE
    rather than TRUNCATE: on a hundred nearly empty tables it is fifty times faster.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [SEEDS])
        seeded = [name for (name,) in cursor.fetchall()]
        statements = ["SET session_replication_role = replica"]
        statements += [f'DELETE FROM public."{table}"' for table in _tables(cursor)]
        statements += [f'INSERT INTO public."{table}" SELECT * FROM {SEEDS}."{table}"' for table in seeded]
        statements += ["SET session_replication_role = DEFAULT"]
        cursor.execute(";\n".join(statements))


def _tables(cursor: Any) -> list[str]:
    cursor.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'django_migrations' ORDER BY 1"
    )
    return [name for (name,) in cursor.fetchall()]


def _restore_after_transactional_test(self: TransactionTestCase) -> None:
    restore_database()


# pytest-django's transactional tests are this class underneath; its flush is a TRUNCATE, which the ledger refuses.
TransactionTestCase._fixture_teardown = _restore_after_transactional_test  # type: ignore[attr-defined]
