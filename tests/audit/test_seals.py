"""Chains of the audit log: what was written can be proved, and nothing can be changed, taken out or moved unseen."""

from __future__ import annotations

import threading
from datetime import timedelta
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, connections, transaction
from django.utils import timezone

from apps.audit import proofs
from apps.audit import services as audit
from apps.audit.models import AuditEvent, Chain, Seal, WaitingEvent
from apps.audit.sealing import FIRST, PEOPLE, digest_of
from apps.core.actor import system_actor
from tests import build
from tests.threads import PATIENCE_SECONDS, at_once

LAB, OTHER = UUID(int=1), UUID(int=2)


def write(*labels, organization_id=LAB):
    for label in labels:
        actor = system_actor("tests")
        audit.record(
            actor=actor,
            action="thing.done",
            organization_id=organization_id,
            diff={"label": label, "n": [1, None]},
        )


def seal():
    return audit.seal_waiting(now=timezone.now())


def order(chain_id=LAB):
    rows = Seal.objects.filter(chain_id=chain_id).order_by("position").select_related("event")
    return [(row.position, row.event.diff["label"]) for row in rows]


def failing():
    return [check.name for check in proofs.checks() if not check.holds]


def tamper(sql, *values):
    """Change rows as somebody would who owns the database: no trigger and no foreign key acts."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql, values)
        assert cursor.rowcount


@pytest.fixture
def sealed(transactional_db):
    """Three sealed events of one chain and one of another; return the ids of the three."""
    write("a", "b", "c")
    write("x", organization_id=OTHER)
    seal()
    return list(Seal.objects.filter(chain_id=LAB).order_by("position").values_list("event_id", flat=True))


def test_each_organization_has_a_chain_and_people_share_one(db):
    write("a", "b")
    write("x", organization_id=OTHER)
    write("login", organization_id=None)

    assert seal() == 4
    assert order(LAB) == [(1, "a"), (2, "b")]
    assert order(OTHER) == [(1, "x")]
    assert order(PEOPLE) == [(1, "login")]
    assert not WaitingEvent.objects.exists()
    assert failing() == []


def test_a_later_seal_goes_on_where_the_chain_ends(db):
    write("a")
    seal()
    write("b")
    seal()

    first, second = Seal.objects.order_by("position").select_related("event")
    assert bytes(first.digest) == digest_of(FIRST, first.event)
    assert bytes(second.digest) == digest_of(bytes(first.digest), second.event)
    head = Chain.objects.get(pk=LAB)
    assert (head.position, bytes(head.digest)) == (2, bytes(second.digest))
    assert seal() == 0


def test_the_form_that_is_hashed_never_changes(db):
    event = AuditEvent(
        id=UUID(int=7),
        organization_id=LAB,
        actor_kind="user",
        actor_id=UUID(int=8),
        actor_label="ada@example.com",
        action="role.changed",
        diff={"role": ["viewer", "admin"], "ü": {"b": 1, "a": None}},
        correlation_id="request-1",
        occurred_at=build.NOW,
    )

    assert digest_of(FIRST, event).hex() == "bbeaece3ce4d6c444f6d468552c4c459da794ea90638c04aa8be034599b68201"


@pytest.mark.parametrize(
    ("sql", "check"),
    [
        ("UPDATE audit_auditevent SET actor_label = 'mallory' WHERE id = %s", "Every sealed event is what was"),
        ("UPDATE audit_auditevent SET diff = '{}' WHERE id = %s", "Every sealed event is what was"),
        ("UPDATE audit_auditevent SET occurred_at = occurred_at - interval '1 microsecond' WHERE id = %s",
         "Every sealed event is what was"),
        ("DELETE FROM audit_auditevent WHERE id = %s", "Every sealed event is still there"),
        ("DELETE FROM audit_seal WHERE event_id = %s", "Every chain counts from 1 without a gap"),
        ("UPDATE audit_auditevent SET organization_id = NULL WHERE id = %s", "Every sealed event is still there"),
    ],
)  # fmt: skip
def test_a_changed_or_missing_row_is_found(sealed, sql, check):
    tamper(sql, sealed[1])

    assert any(name.startswith(check) for name in failing())


def test_rows_that_changed_places_are_found(sealed):
    tamper("UPDATE audit_seal SET position = position + 100 WHERE event_id = %s", sealed[0])
    tamper("UPDATE audit_seal SET position = 1 WHERE event_id = %s", sealed[1])
    tamper("UPDATE audit_seal SET position = 2 WHERE event_id = %s", sealed[0])

    assert failing() == ["Every sealed event is what was sealed, after what came before it"]


def test_a_chain_whose_end_was_cut_off_is_found(sealed):
    tamper("DELETE FROM audit_auditevent WHERE id = %s", sealed[2])
    tamper("DELETE FROM audit_seal WHERE event_id = %s", sealed[2])

    assert failing() == ["Every chain ends where its head says"]


def test_a_chain_that_is_gone_altogether_is_found(sealed):
    tamper("DELETE FROM audit_seal WHERE chain_id = %s", LAB)
    tamper("DELETE FROM audit_auditevent WHERE organization_id = %s", LAB)

    assert failing() == ["Every chain ends where its head says"]


def test_an_event_that_was_slipped_in_is_found(sealed):
    tamper(
        "INSERT INTO audit_auditevent "
        "SELECT (jsonb_populate_record(event, jsonb_build_object('id', gen_random_uuid()))).* "
        "FROM audit_auditevent event WHERE id = %s",
        sealed[0],
    )

    assert failing() == ["Every event is sealed or waits to be"]


def test_a_guard_that_was_taken_off_is_found(sealed):
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE audit_seal DISABLE TRIGGER audit_seal_rows_stay")
        found = failing()
        transaction.set_rollback(True)

    assert found == ["Every guard of the audit log is in force"]


def test_postgresql_refuses_to_change_a_seal(sealed):
    for sql in ("UPDATE audit_seal SET position = 9", "DELETE FROM audit_seal"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql)


def test_what_is_committed_late_is_sealed_late(transactional_db):
    written, may_commit = threading.Event(), threading.Event()

    def late():
        try:
            with transaction.atomic():
                write("written first, committed last")
                written.set()
                assert may_commit.wait(PATIENCE_SECONDS)
        finally:
            connections.close_all()

    thread = threading.Thread(target=late)
    thread.start()
    assert written.wait(PATIENCE_SECONDS)
    write("committed first")
    seal()
    early = order()
    may_commit.set()
    thread.join(PATIENCE_SECONDS)
    seal()

    assert early == [(1, "committed first")]
    assert order() == [(1, "committed first"), (2, "written first, committed last")]
    assert failing() == []


def test_sealers_at_once_make_one_chain(transactional_db):
    write(*"abcdefghij")

    counts = at_once(seal, seal, seal)
    seal()

    assert sum(counts) == 10
    assert order() == list(enumerate("abcdefghij", start=1))
    assert failing() == []


def test_sealing_while_others_write_loses_nothing(transactional_db):
    def writing(name):
        def work():
            for number in range(10):
                with transaction.atomic():
                    write(f"{name}{number}")

        return work

    at_once(writing("a"), writing("b"), *[lambda: [seal() for _time in range(5)]] * 2)
    seal()

    assert [position for position, _label in order()] == list(range(1, 21))
    assert failing() == []


def test_more_than_one_batch(db, monkeypatch):
    monkeypatch.setattr(audit, "_SEALED_AT_ONCE", 2)
    monkeypatch.setattr(proofs, "CHUNK", 2)
    write(*"abcde")

    assert seal() == 5
    assert order() == list(enumerate("abcde", start=1))
    assert failing() == []


def test_the_command_prints_each_check_and_fails_loudly(transactional_db):
    write("a", "b")
    seal()
    told = StringIO()
    call_command("verify_audit", "--heads", stdout=told)
    head = Chain.objects.get()

    assert told.getvalue().count("ok  ") == 6
    assert f"{LAB}  2  {bytes(head.digest).hex()}" in told.getvalue()

    with transaction.atomic():
        tamper("UPDATE audit_auditevent SET reason = 'x' WHERE diff->>'label' = 'b'")
    told = StringIO()
    with pytest.raises(CommandError, match="1 checks failed"):
        call_command("verify_audit", stdout=told)
    assert f"{LAB} at 2: event" in told.getvalue()


def test_the_head_is_told_to_the_log(db, caplog):
    write("a")
    with caplog.at_level("INFO"):
        seal()

    assert bytes(Chain.objects.get().digest).hex() in caplog.text


def test_an_event_that_nobody_has_sealed_yet_is_no_failure(db):
    write("a")

    assert failing() == []
    assert timezone.now() - AuditEvent.objects.get().occurred_at < timedelta(minutes=1)
