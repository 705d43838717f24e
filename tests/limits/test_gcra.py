"""The buckets themselves: the same numbers in Valkey, in a process and in PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import time
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.limits import services, stores
from apps.limits.models import GuessBucket
from apps.limits.policies import MICROSECONDS, Bucket, Policy, step, verdict
from tests.threads import at_once

# So slow that nothing grows back while a busy machine counts to sixteen.
SLOW = Policy(name="slow", per_minute=1, burst=10)
WRITES = Policy(name="writes", per_minute=1, burst=3)


class FromDatabase:
    """The fallback of guesses behind the same method."""

    def take(self, buckets):
        (bucket,) = buckets
        return services._take_from_database(bucket)


@pytest.fixture(params=["valkey", "process", "database"])
def store(request, limited, transactional_db):
    return {"valkey": stores.shared, "process": stores.local, "database": FromDatabase}[request.param]()


def bucket(policy=SLOW, key=""):
    return Bucket(policy=policy, key=key or str(uuid4()))


def test_a_burst_counts_down_to_nothing_and_the_next_waits_a_minute(store):
    asked = bucket()

    answers = [store.take([asked]) for _request in range(11)]

    assert [answer.remaining for answer in answers] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    assert [answer.allowed for answer in answers] == [True] * 10 + [False]
    assert 30 < answers[-1].retry_after <= 60
    assert 570 < answers[-1].whole_at - time.time() <= 601


def test_a_second_later_one_has_grown_back(store):
    asked = bucket(Policy(name="short", per_minute=60, burst=1))
    while store.take([asked]).allowed:  # Again where this took longer than a second.
        pass

    time.sleep(1.05)

    assert store.take([asked]).allowed is True


def test_at_once_no_more_pass_than_the_burst(store):
    asked = bucket()

    answers = at_once(*[lambda: store.take([asked])] * 16)

    assert sorted(answer.allowed for answer in answers) == [False] * 6 + [True] * 10


@pytest.mark.parametrize("where", ["valkey", "process"])
def test_several_buckets_move_together_or_not_at_all(limited, where):
    store = stores.shared() if where == "valkey" else stores.local()
    both = [bucket(), bucket(WRITES)]

    answers = [store.take(both) for _request in range(4)]

    assert [answer.policy.name for answer in answers] == ["writes"] * 4, "the tightest is told"
    assert [answer.remaining for answer in answers] == [2, 1, 0, 0]
    assert not answers[-1].allowed
    assert 30 < answers[-1].retry_after <= 60
    assert store.take(both[:1]).remaining == 6, "the refused one was not counted here"


def test_two_processes_share_a_bucket(limited):
    asked = bucket()
    program = (
        "import django; django.setup()\n"
        "from apps.limits import stores\n"
        "from apps.limits.policies import Bucket, Policy\n"
        f"stores.PREFIX, stores.SECONDS_MAX = {stores.PREFIX!r}, {stores.SECONDS_MAX!r}\n"
        f"bucket = Bucket(policy=Policy(name='slow', per_minute=1, burst=10), key={asked.key!r})\n"
        "print(sum(stores.shared().take([bucket]).allowed for _request in range(8)))\n"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "config.settings", "COUNTINGHOUSE_VAR": str(django_settings.VAR)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=django_settings.ROOT,
        )
        for _process in range(2)
    ]

    passed = [int(process.communicate()[0]) for process in running]

    assert sum(passed) == 10
    assert max(passed) <= 8


def test_a_bucket_disappears_when_it_is_whole(limited):
    store = stores.shared()
    asked = bucket()
    store.take([asked])

    left_ms = store._client.pttl(stores.PREFIX + asked.digest)

    assert 30_000 < left_ms <= 61_001


def test_guesses_grow_back_five_a_minute():
    guessed = (services.LOGIN, services.OTP, services.SIGN_UP, services.RESET, services.VOUCHER)
    assert {(policy.burst, policy.interval) for policy in guessed} == {(5, 12 * MICROSECONDS)}


def test_names_in_a_store_say_nothing_of_whom_they_count():
    assert "ada" not in bucket(key="ada@example.com").digest
    assert bucket(key="x").digest != bucket(WRITES, key="x").digest


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    per_minute=st.integers(1, 10_000),
    burst=st.integers(1, 500),
    gaps=st.lists(st.integers(0, 5 * MICROSECONDS), min_size=1, max_size=60),
)
def test_never_more_than_the_burst_and_what_has_grown_back(per_minute, burst, gaps):
    policy = Policy(name="any", per_minute=per_minute, burst=burst)
    now = whole_at = 1_700_000_000 * MICROSECONDS
    began, taken = now, 0
    for gap in gaps:
        now += gap
        moved = step(policy, whole_at, now)
        answer = verdict([policy], [moved])
        if answer.allowed:
            whole_at, taken = moved.whole_at, taken + 1
            assert 0 <= answer.remaining < burst
        else:
            assert step(policy, whole_at, now + answer.retry_after * MICROSECONDS).wait <= 0
            assert step(policy, whole_at, now + (answer.retry_after - 1) * MICROSECONDS).wait > 0
        assert taken <= burst + (now - began) // policy.interval


def test_guesses_that_are_over_are_deleted(limited, db, settings):
    settings.REDIS_URL = ""
    stores.shared.cache_clear()
    services.guard(services.LOGIN, "ada@example.com", "192.0.2.7")
    GuessBucket.objects.create(digest="old", whole_at=1)

    services.purge_guesses()

    assert list(GuessBucket.objects.exclude(digest="old").values_list("digest", flat=True)) == [
        Bucket(policy=services.LOGIN, key="ada@example.com\x00192.0.2.7").digest
    ]
    assert not GuessBucket.objects.filter(digest="old").exists()
