"""What every test stands on: the database's settings and cleaning, jobs that wait for the test, requests."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from itertools import cycle
from typing import Any
from uuid import uuid4

import pytest
from celery import current_app
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test import TransactionTestCase

from apps.core import jobs
from apps.credentials.services import signing
from apps.limits import requests as rates
from apps.limits import stores
from apps.limits.policies import MICROSECONDS, Policy
from tests import database


def pytest_collection_finish() -> None:
    """Keep the collector of garbage from what stays for good, which it would walk through hundreds of times."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped anything where everything must run, as in `.ci/run`."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("COUNTINGHOUSE_SKIPS_FAIL") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure() -> None:
    # Each of many test users would take a third of a second with the real hasher.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # The workers of one run share the server, and would share its cache.
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    # One address sends every request of a run; tests of the limits turn them on.
    settings.RATE_LIMITS_ENABLED = False
    # Of many who are at something at once the last one waits long on a busy machine, and is not to be refused for it.
    settings.LOCK_TIMEOUT_MS = 60_000
    # Each client makes the middleware anew, which otherwise lists every static file: most of a request's time.
    settings.WHITENOISE_AUTOREFRESH = True
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None, django_db_blocker: Any) -> None:
    # Tests survive no crash of the server, so they need not wait for its disk.
    settings.DATABASES["default"]["OPTIONS"]["options"] += " -c synchronous_commit=off"
    settings.DATABASES["default"]["OPTIONS"]["options"] += f" -c lock_timeout={settings.LOCK_TIMEOUT_MS}"
    with django_db_blocker.unblock():
        settings.DATABASES["default"]["TEST"]["TEMPLATE"] = database.make_template()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """End what is still connected before the database goes: of a killed process PostgreSQL may not know yet."""
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def restore_database() -> None:
    """Bring every table back to what migrations left, append-only ones too.

    As superuser with `session_replication_role = replica`, under which no trigger and no foreign key acts. DELETE
    rather than TRUNCATE, which costs a new file for each of a hundred nearly empty tables.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [database.SEEDS])
        seeded = [name for (name,) in cursor.fetchall()]
        statements = ["SET session_replication_role = replica"]
        statements += [f'DELETE FROM public."{table}"' for table in database.tables()]
        statements += [
            f'INSERT INTO public."{table}" SELECT * FROM {database.SEEDS}."{table}"' for table in seeded
        ]
        statements += ["SET session_replication_role = DEFAULT"]
        cursor.execute(";\n".join(statements))


def _restore_after_transactional_test(self: TransactionTestCase) -> None:
    restore_database()


# pytest-django's transactional tests are this class underneath; its flush is a TRUNCATE, which the ledger refuses.
TransactionTestCase._fixture_teardown = _restore_after_transactional_test  # type: ignore[attr-defined]


class Jobs:
    """The jobs queued by a test, instead of the broker's."""

    def __init__(self, *, commits: bool) -> None:
        self._commits = commits
        self._queued: list[tuple[str, dict[str, Any]]] = []

    def take(self, task_name: str, arguments: dict[str, Any]) -> None:
        """Stand in for the broker, which also sees JSON only."""
        self._queued.append((task_name, json.loads(json.dumps(arguments))))

    @property
    def queued(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and arguments of each job whose transaction was not rolled back."""
        # Inside a test's own transaction nothing commits, so what waits for the commit happens here.
        while not self._commits and connection.run_on_commit:
            _savepoints, callback, _robust = connection.run_on_commit.pop(0)
            callback()
        return self._queued

    def run(self) -> list[str]:
        """Run the queued jobs and those that they queue, in order, and return their names."""
        done = []
        while self.queued:
            name, arguments = self._queued.pop(0)
            current_app.tasks[name](**arguments)
            done.append(name)
        return done


@pytest.fixture(autouse=True)
def captured_jobs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Keep every test from the broker: `captured_jobs.queued` is what it would have got, `.run()` does it."""
    marker = request.node.get_closest_marker("django_db")
    transactional = {"transactional_db", "live_server"} & set(request.fixturenames)
    taken = Jobs(commits=bool(transactional or (marker and marker.kwargs.get("transaction"))))
    monkeypatch.setattr(jobs, "send", taken.take)
    yield taken
    cache.clear()


@pytest.fixture(scope="session")
def rsa_keys() -> Iterator[RSAPrivateKey]:
    """Yield keys to sign with, each of which takes a tenth of a second to find: four of them, over and over."""
    return cycle([signing.generate_private_key(public_exponent=65537, key_size=2048) for _number in range(4)])


@pytest.fixture(autouse=True)
def found_keys(rsa_keys: Iterator[RSAPrivateKey], monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare tests from finding primes."""
    monkeypatch.setattr(signing, "generate_private_key", lambda **_how: next(rsa_keys))


@pytest.fixture
def run_jobs(captured_jobs: Jobs) -> Any:
    """Return the function that does what is queued."""
    return captured_jobs.run


def forget_stores() -> None:
    """Let the limits begin anew, with the settings of now."""
    stores.shared.cache_clear()
    stores.local.cache_clear()
    rates.forget_rates()


@pytest.fixture
def limited(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count requests and guesses, as in production, from nothing."""
    settings.RATE_LIMITS_ENABLED = True
    # Other tests use the same server at the same time.
    monkeypatch.setattr(stores, "PREFIX", f"test:{uuid4()}:")
    # A busy machine answers late, which is no reason to count elsewhere.
    monkeypatch.setattr(stores, "SECONDS_MAX", 30)
    forget_stores()
    yield
    forget_stores()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing grow back for an hour: three clocks count, and a busy machine needs longer than seconds."""
    monkeypatch.setattr(Policy, "interval", property(lambda _policy: 3600 * MICROSECONDS))
