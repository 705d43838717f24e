"""What migrations ask of PostgreSQL, and that a transactional test leaves the database as it found it."""

from __future__ import annotations

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, connection

from apps.audit import services as audit
from apps.audit.models import AuditEvent
from tests import build


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_auditevent SET reason = 'better'",
        "DELETE FROM audit_auditevent",
        "TRUNCATE audit_auditevent CASCADE",
    ],
)
def test_an_append_only_table_refuses_every_change(transactional_db, statement):
    audit.record(actor=build.actor(), action="tested")

    with (
        pytest.raises(IntegrityError, match="never changed or deleted") as refusal,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)

    assert refusal.value.__cause__.sqlstate == "23001"
    assert AuditEvent.objects.get().reason == ""


@pytest.mark.parametrize("run", [1, 2])
def test_a_transactional_test_finds_seeded_rows_and_nothing_else(transactional_db, run):
    assert ContentType.objects.filter(app_label="audit").exists()
    assert not AuditEvent.objects.exists()

    audit.record(actor=build.actor(), action="tested")
    ContentType.objects.all().delete()
