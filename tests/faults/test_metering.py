"""Metering on the real database: crashes at named points, several workers at once, events that commit mid-tick."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection, transaction

from apps.billing import services as billing
from apps.metering import services
from apps.metering.models import DirtyBatch, Resource, UsageChange, UsageEvent, UsageHour
from apps.metering.services import counting
from tests import build
from tests.metering.events import (
    EARLIER,
    NOW,
    heartbeat,
    minutes,
    provisioner,
    recorded,
    send,
    started,
    tick,
    usage,
)
from tests.threads import PATIENCE_SECONDS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults]

# A process of its own on the test's database, as a worker would be.
WORKER = """
import sys
from datetime import datetime
from uuid import UUID
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.DEBUG = True
import django
django.setup()
from apps.metering import services
until = datetime.fromisoformat(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
while services.meter_organization(organization_id=UUID(sys.argv[2]), until=until, now=until, limit=3).more:
    pass
"""


# A process that takes in each line that it is given, as a web worker would each body.
TAKER = """
import json, sys
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.DEBUG = True
import django
django.setup()
from datetime import datetime
from apps.metering import services
from tests.metering.events import provisioner
now = datetime.fromisoformat(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    found = services.ingest_body(actor=provisioner(), body=line.encode(), content_type="application/json", now=now)
    told = [found.accepted, found.duplicates, [[error.id, error.code] for error in found.errors]]
    print(json.dumps(told), flush=True)
"""


def start_worker(organization_id: UUID, *, fail_at: str = "") -> subprocess.Popen[str]:
    """Start a worker that has loaded everything and waits for a line to begin."""
    return start(WORKER, str(organization_id), NOW.isoformat(), fail_at=fail_at)


def start(program: str, *arguments: str, fail_at: str = "") -> subprocess.Popen[str]:
    """Start a program on the test's database; it is ready when this returns."""
    worker = subprocess.Popen(
        [sys.executable, "-c", program, connection.settings_dict["NAME"], *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=settings.ROOT,
        env={**os.environ, "COUNTINGHOUSE_FAIL_AT": fail_at, "DJANGO_SETTINGS_MODULE": "config.settings"},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def finish(worker: subprocess.Popen[str], words: str = "go\n") -> int:
    worker.communicate(words, timeout=PATIENCE_SECONDS)
    return worker.returncode


@pytest.fixture
def lab():
    return build.organization("lab", now=EARLIER)


def send_ten() -> dict[tuple[str, str, str, str], str]:
    """Send usage of ten resources and return what it must come to."""
    send(*(recorded(f"r{number}", EARLIER, EARLIER + minutes(90), gpus=1) for number in range(10)))
    return {
        ("gpu_hours", "h100", f"r{number}", hour): seconds
        for number in range(10)
        for hour, seconds in (("05-15 09:00", "3600"), ("05-15 10:00", "1800"))
    }


@pytest.mark.parametrize("point", ["metering.after_claim", "metering.before_write", "metering.before_commit"])
def test_a_worker_killed_in_a_tick_leaves_everything_to_the_next(lab, point):
    expected = send_ten()
    assert finish(start_worker(lab.pk, fail_at=point)) == -signal.SIGKILL
    assert usage(lab.pk) == {}
    assert DirtyBatch.objects.resources() == 10

    tick(lab.pk)

    assert usage(lab.pk) == expected
    assert set(UsageHour.objects.values_list("revision", flat=True)) == {1}
    assert not DirtyBatch.objects.exists()


def test_a_worker_killed_between_steps_has_done_its_steps_once(lab):
    expected = send_ten()
    services.meter_organization(organization_id=lab.pk, until=NOW, now=NOW, limit=3)
    assert finish(start_worker(lab.pk, fail_at="metering.before_commit")) == -signal.SIGKILL

    tick(lab.pk)

    assert usage(lab.pk) == expected
    assert set(UsageHour.objects.values_list("revision", flat=True)) == {1}


def test_two_workers_at_once_count_once(lab):
    expected = send_ten()
    workers = [start_worker(lab.pk), start_worker(lab.pk)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()

    assert [worker.wait(timeout=PATIENCE_SECONDS) for worker in workers] == [0, 0]

    for worker in workers:
        worker.communicate()
    assert usage(lab.pk) == expected
    assert set(UsageHour.objects.values_list("revision", flat=True)) == {1}
    # Two hours; each of four steps changed both sums.
    assert UsageChange.objects.count() == 8


def test_an_event_that_commits_during_a_tick_is_counted_by_the_next(lab, monkeypatch):
    send(started("a", EARLIER, gpus=1))
    count = counting._count

    def count_and_let_another_in(*arguments):
        found = list(count(*arguments))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(in_thread, lambda: send(heartbeat("a", EARLIER + minutes(10)))).result()
        return found

    monkeypatch.setattr(counting, "_count", count_and_let_another_in)
    services.meter_organization(organization_id=lab.pk, until=NOW, now=NOW)
    monkeypatch.setattr(counting, "_count", count)
    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "60"}
    assert DirtyBatch.objects.resources() == 1

    tick(lab.pk)

    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "660"}


def in_thread(work):
    """Run work on a connection of this thread, closed afterwards."""
    try:
        return work()
    finally:
        connection.close()


def test_the_same_events_in_many_batches_at_once_are_taken_once_without_deadlock(lab):
    threads, rounds = 6, 5
    barrier = Barrier(threads)

    def send_shuffled(thread: int) -> list[tuple[int, int, int]]:
        answers = []
        for turn in range(rounds):
            batch = [
                recorded(
                    f"r{number % 40}",
                    EARLIER + timedelta(seconds=number),
                    EARLIER + minutes(5),
                    id=f"{turn}-{number}",
                )
                for number in range(200)
            ]
            # Each thread in an order of its own: insertion in the order received would deadlock.
            batch = batch[thread * 31 :] + batch[: thread * 31]
            batch = batch[::-1] if thread % 2 else batch
            barrier.wait()
            outcome = services.ingest_body(
                actor=provisioner(), body=json.dumps(batch).encode(), content_type="application/json", now=NOW
            )
            answers.append((outcome.accepted, outcome.duplicates, outcome.rejected))
        return answers

    with ThreadPoolExecutor(threads) as pool:
        futures = [
            pool.submit(in_thread, lambda thread=thread: send_shuffled(thread)) for thread in range(threads)
        ]
        answers = [future.result() for future in futures]

    assert UsageEvent.objects.count() == 200 * rounds
    assert Resource.objects.count() == 40
    for turn in range(rounds):
        assert sum(answer[turn][0] for answer in answers) == 200
        assert all(sum(answer[turn]) == 200 and answer[turn][2] == 0 for answer in answers)


def test_batches_of_several_processes_at_once_end_with_one_row_for_each_id(lab):
    processes, rounds, size = 2, 4, 150
    takers = [start(TAKER, NOW.isoformat()) for _number in range(processes)]
    told: list[list[tuple[int, int, dict[str, str]]]] = []
    for turn in range(rounds):
        for number, taker in enumerate(takers):
            # Every third event says something else in each process, and each has an order of its own.
            batch = [
                recorded(
                    f"r{at % 20}",
                    EARLIER,
                    EARLIER + minutes(5),
                    id=f"{turn}-{at}",
                    gpus=1 + number * (at % 3 == 0),
                )
                for at in range(size)
            ]
            batch = batch[number * 50 :] + batch[: number * 50]
            assert taker.stdin is not None
            taker.stdin.write(json.dumps(batch[:: 1 - 2 * (number % 2)]) + "\n")
            taker.stdin.flush()
        answers = []
        for taker in takers:
            assert taker.stdout is not None
            accepted, duplicates, errors = json.loads(taker.stdout.readline())
            answers.append((accepted, duplicates, dict(errors)))
        told.append(answers)
    assert [finish(taker, "") for taker in takers] == [0] * processes

    stored = dict(UsageEvent.objects.values_list("event_id", "gpus"))
    assert len(stored) == UsageEvent.objects.count() == rounds * size
    for turn, answers in enumerate(told):
        disputed = {f"{turn}-{at}" for at in range(0, size, 3)}
        assert sum(accepted for accepted, _duplicates, _errors in answers) == size
        for number, (accepted, duplicates, errors) in enumerate(answers):
            # It conflicts wherever another process was first, and nowhere else.
            lost = {name for name in disputed if stored[name] != 1 + number}
            assert errors == dict.fromkeys(lost, "conflict")
            assert accepted + duplicates == size - len(lost)


def test_two_contents_of_one_identity_at_once_are_one_acceptance_and_one_conflict(lab):
    barrier = Barrier(2)

    def send_one(gpus: int) -> tuple[int, list[str]]:
        barrier.wait()
        outcome = send(started("a", NOW, gpus=gpus))
        return outcome.accepted, [error.code for error in outcome.errors]

    for _attempt in range(5):
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(in_thread, lambda gpus=gpus: send_one(gpus)) for gpus in (1, 2)]
            answers = sorted(future.result() for future in futures)
        assert answers in ([(0, ["conflict"]), (1, [])], [(0, []), (0, ["conflict"])])
    assert UsageEvent.objects.count() == 1


def test_a_worker_leaves_an_organization_that_somebody_works_on(lab):
    tick(lab.pk, EARLIER)
    send(recorded("a", EARLIER, EARLIER + minutes(11)))
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        services.lock_metering(organization_id=lab.pk)

        def visit() -> None:
            billing.meter_and_charge(organization_id=lab.pk, until=NOW, now=NOW, wait=False)
            with pytest.raises(services.MeteringBusy):
                services.meter_organization(organization_id=lab.pk, until=NOW, now=NOW, wait=False)

        pool.submit(in_thread, visit).result(PATIENCE_SECONDS)
    assert DirtyBatch.objects.resources() == 1

    billing.meter_and_charge(organization_id=lab.pk, until=NOW, now=NOW, wait=False)
    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "5280"}
