"""What PostgreSQL itself refuses; these tests speak SQL."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from apps.metering.models import Resource, UsageEvent
from tests import build
from tests.metering.events import EARLIER, minutes, reading, recorded, send, tick


def run(sql: str, *parameters: object) -> None:
    """Run a statement and what is checked at commit."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def refused(sql: str, *parameters: object) -> str:
    """Run a statement that must fail, and return PostgreSQL's message."""
    with pytest.raises(IntegrityError) as caught:
        run(sql, *parameters)
    return str(caught.value)


@pytest.fixture
def resource(lab):
    send(recorded("a", EARLIER, EARLIER + minutes(10)))
    tick(lab.pk)
    run("SET CONSTRAINTS ALL IMMEDIATE")  # As after a commit.
    return Resource.objects.get()


@pytest.fixture
def others_resource(db):
    build.organization("other", now=EARLIER)
    send(recorded("b", EARLIER, EARLIER + minutes(10), organization="other"))
    return Resource.objects.get(organization__slug="other")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE metering_usageevent SET gpus = 1",
        "DELETE FROM metering_usageevent",
        "TRUNCATE metering_usageevent",
        "TRUNCATE metering_usageevent CASCADE",
    ],
)
def test_an_event_is_never_edited_deleted_or_truncated(resource, sql):
    assert "is refused" in refused(sql)
    assert UsageEvent.objects.count() == 1


def insert_event(**changes: object) -> tuple[str, list[object]]:
    """Return an INSERT that copies the only event of the first resource, with some columns replaced."""
    row = {
        name: value
        for name, value in UsageEvent.objects.order_by("pk").values()[0].items()
        if name not in {"id", "labels"}
    } | {"event_id": "copy", **changes}
    columns = ", ".join(row)
    places = ", ".join(["%s"] * len(row))
    return f"INSERT INTO metering_usageevent ({columns}, labels) VALUES ({places}, '{{}}')", list(
        row.values()
    )


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"event_id": None}, "null value"),
        ({"type": "allocation.exploded"}, "metering_usageevent_complete"),
        ({"type": "allocation.started"}, "metering_usageevent_complete"),
        ({"gpus": None}, "metering_usageevent_complete"),
        ({"quantity": 1}, "metering_usageevent_complete"),
        ({"ended_at": EARLIER - minutes(1)}, "metering_usageevent_complete"),
        ({"gpus": -1}, "metering_usageevent_not_negative"),
    ],
)
def test_an_event_is_complete(resource, changes, constraint):
    sql, parameters = insert_event(**changes)

    assert constraint in refused(sql, *parameters)


def test_an_identity_is_one_row(resource):
    sql, parameters = insert_event(event_id=UsageEvent.objects.get().event_id)

    assert "metering_usageevent_once" in refused(sql, *parameters)


def test_an_event_refers_to_its_own_organization_only(resource, others_resource):
    other = others_resource.organization
    project, key = build.project(other), build.api_key(other)
    key_id = other.api_keys.get(public_id=key.split("_")[2]).pk
    for changes, constraint in (
        ({"resource_id": others_resource.pk}, "metering_usageevent_resource_tenant"),
        ({"project_id": project.pk}, "metering_usageevent_project_tenant"),
        ({"credential_id": key_id}, "metering_usageevent_credential_tenant"),
    ):
        sql, parameters = insert_event(**changes)
        assert constraint in refused(sql, *parameters)


def test_hours_refer_to_their_own_organization_only(resource, others_resource):
    project = build.project(others_resource.organization)
    moved = "UPDATE metering_usagehour SET {} = %s"
    assert "metering_usagehour_resource_tenant" in refused(moved.format("resource_id"), others_resource.pk)
    assert "metering_usagehour_project_tenant" in refused(moved.format("project_id"), project.pk)


def test_an_hour_is_one_row_also_without_a_project(resource):
    copied = (
        "INSERT INTO metering_usagehour (organization_id, resource_id, meter, sku, region, project_id, credential_id,"
        " hour, quantity, revision) SELECT organization_id, resource_id, meter, sku, region, project_id, credential_id,"
        " hour, quantity, revision FROM metering_usagehour"
    )
    assert "metering_usagehour_once" in refused(copied)
    assert "metering_usagehour_not_negative" in refused("UPDATE metering_usagehour SET quantity = -1")
    assert "metering_usagehour_meter_given" in refused("UPDATE metering_usagehour SET meter = ''")
    assert "metering_usagehour_revision_positive" in refused("UPDATE metering_usagehour SET revision = 0")


def test_a_resource_is_one_row(resource):
    assert "metering_resource_once" in refused(
        "INSERT INTO metering_resource (id, organization_id, source, subject, is_single_event)"
        " SELECT gen_random_uuid(), organization_id, source, subject, is_single_event FROM metering_resource"
    )


def test_a_reading_and_an_interval_are_both_complete(lab):
    assert send(reading(EARLIER, "egress_gb", 1), recorded("a", EARLIER, EARLIER)).accepted == 2


def test_what_events_refer_to_stays(lab, resource, others_resource):
    project, key = build.project(lab, "ml"), build.api_key(lab)
    key_id = lab.api_keys.get(public_id=key.split("_")[2]).pk
    send(recorded("c", EARLIER, EARLIER, project="ml", api_key=key.split("_")[2]))

    for sql, parameters in (
        ("DELETE FROM metering_resource", ()),
        ("TRUNCATE metering_resource CASCADE", ()),
        ("UPDATE metering_resource SET organization_id = %s", (others_resource.organization_id,)),
    ):
        assert "is refused" in refused(sql, *parameters)
    for sql, pk, name in (
        ("DELETE FROM organizations_project WHERE id = %s", project.pk, "project"),
        ("UPDATE organizations_project SET id = gen_random_uuid() WHERE id = %s", project.pk, "project"),
        ("DELETE FROM credentials_apikey WHERE id = %s", key_id, "credential"),
    ):
        assert f"metering_usageevent_{name}_tenant" in refused(sql, pk)
    assert Resource.objects.count() == 3


@pytest.mark.parametrize(
    ("resources", "since"), [("{}", "{}"), ("{00000000-0000-0000-0000-000000000001}", "{}")]
)
def test_news_name_resources_each_with_its_moment(lab, resources, since):
    sql = "INSERT INTO metering_dirtybatch (organization_id, resource_ids, since) VALUES (%s, %s, %s)"
    assert "metering_dirtybatch_complete" in refused(sql, lab.pk, resources, since)
