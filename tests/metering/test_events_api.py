"""POST /usage/events over HTTP: what is taken, what is refused and how it is said."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from apps.metering.models import DirtyBatch, Resource, UsageEvent
from apps.metering.services import ingestion
from apps.pricing.models import Region
from tests import build
from tests.metering.events import heartbeat, reading, recorded, resized, started, stopped

URL = "/api/v1/usage/events"


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


@pytest.fixture
def organization(db):
    return build.organization("lab")


@pytest.fixture
def provisioner(organization):
    return build.client(build.integration(["usage:write"]))


def post(client, body: Any, content_type: str = "application/json"):
    sent = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return client.post(URL, data=sent, content_type=content_type)


def only_error(response) -> tuple[int, str, str]:
    assert response.status_code == 200, response.content
    body = response.json()
    assert (body["rejected"], len(body["errors"])) == (1, 1)
    return body["errors"][0]["index"], body["errors"][0]["code"], body["errors"][0]["message"]


def test_takes_one_event(provisioner, organization, now):
    response = post(provisioner, started("a", now, labels={"team": "x\\y\t"[:3]}, gpus=0.46))

    assert response.status_code == 200
    assert response.json() == {"accepted": 1, "duplicates": 0, "rejected": 0, "errors": []}
    event = UsageEvent.objects.get()
    assert (event.source, event.type, event.sku, event.region, f"{event.gpus}") == (
        "prov",
        "allocation.started",
        "h100",
        "eu",
        "0.460",
    )
    assert (event.organization, event.time, event.labels) == (organization, now, {"team": "x\\y"})
    assert event.resource == Resource.objects.get(organization=organization, source="prov", subject="a")
    assert DirtyBatch.objects.get().since == [now]
    assert event.correlation_id == response["X-Correlation-Id"]


@pytest.mark.parametrize(
    ("content_type", "encode"),
    [
        ("application/json", json.dumps),
        ("application/json; charset=utf-8", json.dumps),
        ("application/cloudevents-batch+json", json.dumps),
        ("application/x-ndjson", lambda events: "\n\n".join(json.dumps(event) for event in events) + "\n"),
    ],
)
def test_takes_batches_in_every_form(provisioner, now, content_type, encode):
    batch = [
        started("a", now),
        heartbeat("a", now + timedelta(seconds=1)),
        stopped("a", now + timedelta(seconds=2)),
    ]

    assert post(provisioner, encode(batch), content_type).json()["accepted"] == 3


def test_takes_a_single_cloudevent_by_its_own_content_type(provisioner, now):
    response = post(provisioner, started("a", now), "application/cloudevents+json; charset=utf-8")

    assert response.json()["accepted"] == 1


def test_the_same_again_is_a_duplicate_and_other_content_a_conflict(provisioner, now):
    first = started("a", now, gpus="8")
    post(provisioner, first)

    same = {**first, "time": first["time"].replace("+00:00", ".000Z"), "data": {**first["data"], "gpus": 8.0}}
    other = {**first, "data": {**first["data"], "gpus": 4}}
    response = post(provisioner, [same, other, first])

    body = response.json()
    assert (body["accepted"], body["duplicates"], body["rejected"]) == (0, 2, 1)
    assert (body["errors"][0]["index"], body["errors"][0]["id"], body["errors"][0]["code"]) == (
        1,
        first["id"],
        "conflict",
    )
    assert UsageEvent.objects.count() == 1


def test_copies_inside_one_batch_are_judged_the_same_way(provisioner, now):
    first = started("a", now)
    other = {**first, "data": {**first["data"], "gpus": 4}}

    body = post(provisioner, [first, first, other, started("b", now)]).json()

    assert (body["accepted"], body["duplicates"], [error["index"] for error in body["errors"]]) == (2, 1, [2])


def test_an_identity_holds_across_organizations(provisioner, now):
    build.organization("other")
    post(provisioner, started("a", now, id="one"))

    assert only_error(post(provisioner, started("a", now, id="one", organization="other")))[1] == "conflict"


def test_a_duplicate_stays_one_however_old_it_becomes(organization, now, time_machine):
    client = build.client(build.integration(["usage:write"]))
    event = started("a", now)
    post(client, event)
    time_machine.move_to(now + timedelta(days=60))

    again = post(client, event).json()
    changed = post(client, {**event, "data": {**event["data"], "gpus": 1}})
    fresh = post(client, {**event, "id": "fresh"})

    assert again["duplicates"] == 1
    assert only_error(changed)[1] == "conflict"
    assert only_error(fresh)[1] == "out_of_window"


LONG = "x" * 256


def broken(event: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an event with members replaced; names with `data_` are those of its data, None removes."""
    found = {**event, "data": dict(event["data"])}
    for name, value in changes.items():
        place, key = (
            (found["data"], name.removeprefix("data_")) if name.startswith("data_") else (found, name)
        )
        place[key] = value
        if value is ...:
            del place[key]
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specversion": "0.3"}, "specversion must be 1.0."),
        ({"specversion": ...}, "Object missing required field specversion"),
        ({"id": ""}, "id must not be empty."),
        ({"id": LONG}, "id is longer than 255 characters."),
        ({"id": 7}, "id: Expected str, got int"),
        ({"source": "  "}, "source must not be empty."),
        ({"source": "a\x00b"}, "source contains a NUL character."),
        ({"source": "a\nb"}, "source contains a character that cannot be printed."),
        ({"source": "a\ud800b"}, "source contains a character that cannot be printed."),
        ({"subject": ...}, "subject is required: it names the allocation."),
        ({"subject": LONG}, "subject is longer than 255 characters."),
        ({"type": "allocation.exploded"}, "type allocation.exploded is not known."),
        ({"time": ...}, "time is required."),
        (
            {"time": "2026-05-15"},
            "time is not an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z.",
        ),
        (
            {"time": "2026-05-15T10:00:00"},
            "time is not an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z.",
        ),
        ({"time": 1779000000}, "time: Expected str, got int"),
        ({"time": "2026-02-30T10:00:00Z"}, "time is no time that exists."),
        ({"time": "2026-05-15T10:00:00.0001Z"}, "time is finer than a millisecond."),
        ({"time": "2026-05-15T10:00:00.12300001Z"}, "time is finer than a millisecond."),
        ({"time": "1999-12-31T23:59:59Z"}, "time must lie in the years 2000 to 2099."),
        ({"time": "0001-01-01T00:00:00+23:59"}, "time must lie in the years 2000 to 2099."),
        ({"data": ...}, "Object missing required field data"),
        ({"data": None}, "data: Expected object, got null"),
        ({"data_organization": ...}, "data: Object missing required field organization"),
        ({"data_organization": ""}, "data.organization must not be empty."),
        ({"data_sku": ...}, "data.sku is required."),
        ({"data_sku": ""}, "data.sku must not be empty."),
        ({"data_sku": 5}, "data.sku: Expected str, got int"),
        ({"data_sku": "x" * 121}, "data.sku is longer than 120 characters."),
        ({"data_sku": "*"}, "data.sku must name one SKU."),
        ({"data_region": "x" * 65}, "data.region is longer than 64 characters."),
        ({"data_region": ...}, "data.region is required."),
        ({"data_gpus": ...}, "data.gpus is required."),
        ({"data_gpus": None}, "data.gpus is required."),
        ({"data_gpus": True}, "data.gpus: Expected decimal, got bool"),
        ({"data_gpus": "many"}, "data.gpus: Invalid decimal string"),
        ({"data_gpus": -1}, "data.gpus must not be negative."),
        ({"data_gpus": "NaN"}, "data.gpus is not a number that can be counted."),
        ({"data_gpus": "-Infinity"}, "data.gpus is not a number that can be counted."),
        ({"data_gpus": float("nan")}, "NaN is not a number that can be counted."),
        ({"data_gpus": float("inf")}, "Infinity is not a number that can be counted."),
        ({"data_gpus": 100_001}, "data.gpus is absurd: more than 100000."),
        ({"data_gpus": "1e999999"}, "data.gpus is absurd: more than 100000."),
        ({"data_gpus": "0.0005"}, "data.gpus is finer than 0.001."),
        ({"data_gpus": "1e-999999"}, "data.gpus is finer than 0.001."),
        ({"data_labels": {"a": 1}}, "data.labels[...]: Expected str, got int"),
        ({"data_labels": {"a": "x\x00"}}, "data.labels contains a NUL character."),
        ({"data_labels": {str(n): "" for n in range(65)}}, "data.labels has more than 64 entries."),
    ],
)
def test_a_bad_event_says_what_is_wrong_and_the_others_are_taken(provisioner, now, changes, message):
    bad = broken(started("bad", now), **changes)

    response = post(provisioner, [started("a", now), bad, started("b", now)])

    index, code, said = only_error(response)
    assert (index, code) == (1, "invalid_event")
    assert said == message
    assert response.json()["accepted"] == 2
    assert not Resource.objects.filter(subject="bad").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda now: recorded("x", now, now - timedelta(seconds=1)),
            "data.ended_at is before data.started_at.",
        ),
        (
            lambda now: recorded("x", now - timedelta(days=1831), now),
            "data.started_at and data.ended_at are more than five years apart.",
        ),
        (lambda now: broken(recorded("x", now, now), data_ended_at=...), "data.ended_at is required."),
        (lambda now: broken(recorded("x", now, now), data_gpus=...), "data.gpus is required."),
        (
            lambda now: recorded("x", now, now, meter="egress_gb", quantity=1),
            "data needs either started_at and ended_at, or meter and quantity.",
        ),
        (
            lambda now: broken(recorded("x", now, now), data_started_at=..., data_ended_at=...),
            "data needs either started_at and ended_at, or meter and quantity.",
        ),
        (lambda now: broken(reading(now, "egress_gb", 1), time=...), "time is required."),
        (lambda now: broken(reading(now, "egress_gb", 1), data_quantity=...), "data.quantity is required."),
        (lambda now: reading(now, "egress_gb", -1), "data.quantity must not be negative."),
        (lambda now: reading(now, "egress_gb", "1e30"), "data.quantity is absurd: more than 1000000000000."),
        (lambda now: reading(now, "egress_gb", "0.0000001"), "data.quantity is finer than 0.000001."),
        (
            lambda now: reading(now, "gpu_hours", 1),
            "data.meter gpu_hours is counted from intervals; send started_at and ended_at.",
        ),
        (lambda now: reading(now, "bananas", 1), "There is no meter bananas."),
        (lambda now: resized("x", now, None), "data.gpus is required."),
        (
            lambda now: started("x", now, api_key="nokey123"),
            "data.api_key nokey123 is no key of organization lab.",
        ),
        (lambda _now: ["not", "an", "event"], "Expected object, got array"),
        (lambda _now: 5, "Expected object, got int"),
        (lambda _now: None, "Expected object, got null"),
    ],
)
def test_other_events_that_make_no_sense(provisioner, now, make, message):
    response = post(provisioner, [make(now), started("a", now)])

    assert only_error(response) == (0, "invalid_event", message)
    assert response.json()["accepted"] == 1


@pytest.mark.parametrize(
    ("offset", "backfill", "taken"),
    [
        (timedelta(minutes=4, seconds=50), False, True),
        (timedelta(minutes=5, seconds=10), False, False),
        (timedelta(minutes=5, seconds=10), True, False),
        (-timedelta(days=34, hours=23), False, True),
        (-timedelta(days=35, minutes=1), False, False),
        (-timedelta(days=35, minutes=1), True, True),
    ],
)
def test_the_time_window(organization, now, offset, backfill, taken):
    client = build.client(build.integration(["usage:write", *(["usage:backfill"] if backfill else [])]))

    response = post(client, started("a", now + offset))

    if taken:
        assert response.json()["accepted"] == 1
    else:
        assert only_error(response)[1] == "out_of_window"
        assert not UsageEvent.objects.exists()


def test_the_end_of_an_interval_is_what_the_window_tests(provisioner, now):
    long_ago = now - timedelta(days=90)

    assert post(provisioner, recorded("a", long_ago, now)).json()["accepted"] == 1
    assert only_error(post(provisioner, recorded("b", long_ago, long_ago)))[1] == "out_of_window"


def test_names_are_resolved(provisioner, organization, now):
    project = build.project(organization, "ml")
    key = build.api_key(organization)

    response = post(
        provisioner,
        [
            started("a", now, project="ml", api_key=key.split("_")[2]),
            started("b", now, project=str(project.pk), organization=str(organization.pk)),
        ],
    )

    assert response.json()["accepted"] == 2
    assert [event.project for event in UsageEvent.objects.order_by("event_id")] == [project, project]
    assert UsageEvent.objects.get(resource__subject="a").credential.public_id in key


def test_unknown_names(provisioner, organization, now):
    other = build.organization("other")
    build.project(other, "theirs")
    Region.objects.create(code="eu", name="")

    body = post(
        provisioner,
        [
            started("a", now, organization="nobody"),
            started("a", now, id="2", project="theirs"),
            started("a", now, id="3", region="mars"),
            started("a", now, id="4"),
            heartbeat("a", now),
            stopped("a", now, region="mars"),
        ],
    ).json()

    assert [(error["index"], error["code"]) for error in body["errors"]] == [
        (0, "unknown_organization"),
        (1, "unknown_project"),
        (2, "unknown_region"),
    ]
    assert body["accepted"] == 3


def test_a_suspended_organization_still_pays_for_what_it_used_and_a_deleted_one_is_unknown(
    provisioner, organization, now
):
    type(organization).objects.update(status="suspended")
    assert post(provisioner, started("a", now)).json()["accepted"] == 1

    type(organization).objects.update(status="deleted")
    assert only_error(post(provisioner, started("b", now)))[1] == "unknown_organization"
    assert post(provisioner, started("a", now)).json()["duplicates"] == 1


def test_recorded_without_a_subject_is_its_own_resource(provisioner, now):
    hour_ago = now - timedelta(hours=1)
    response = post(
        provisioner,
        [
            recorded(None, hour_ago, now, id="x"),
            recorded(None, hour_ago, now, id="y"),
            recorded("x", hour_ago, now, id="z"),
        ],
    )

    assert response.json()["accepted"] == 3
    assert sorted(Resource.objects.values_list("subject", "is_single_event")) == [
        ("x", False),
        ("x", True),
        ("y", True),
    ]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1,", b"nonsense", b'"text"', b"\xff\xfe", b"[" * 50_000, b'{"a":1} {"b":2}']
)
def test_a_body_that_is_no_json_is_refused_as_a_whole(provisioner, body):
    response = post(provisioner, body)

    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert not UsageEvent.objects.exists()


def test_a_malformed_line_rejects_only_itself(provisioner, now):
    lines = [json.dumps(started("a", now)), "{", json.dumps(started("b", now)), '{"id": "c", "x": NaN}']

    body = post(provisioner, "\n".join(lines), "application/x-ndjson").json()

    assert (body["accepted"], [(error["index"], error["id"], error["code"]) for error in body["errors"]]) == (
        2,
        [(1, None, "invalid_event"), (3, "c", "invalid_event")],
    )


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
@pytest.mark.parametrize("labels", [{}, {"filler": "x" * 250}], ids=["small", "large"])
def test_a_body_of_several_chunks_is_answered_as_one(provisioner, now, content_type, labels):
    """Places are counted from the body's start, and copies are told apart across chunks."""
    batch = [started(f"a{number}", now, labels=labels) for number in range(2_500)]
    batch[1_200] = started("bad", now, labels=labels, gpus=-1)
    batch[2_300] = batch[7]
    batch[2_400] = batch[8] | {"subject": "other"}
    is_lines = content_type.endswith("ndjson")
    body = "\n".join(json.dumps(event) for event in batch) + "\n\n" if is_lines else json.dumps(batch)

    answer = post(provisioner, body, content_type).json()

    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2_497, 1, 2)
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [
        (1_200, "invalid_event"),
        (2_400, "conflict"),
    ]
    assert UsageEvent.objects.count() == 2_497


def test_a_large_array_that_is_no_utf8_is_refused_as_a_whole(provisioner, now):
    batch = json.dumps([started(f"a{number}", now) for number in range(4_000)]).encode()

    response = post(provisioner, batch.replace(b'"a3999"', b'"a\xff"'))

    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert not UsageEvent.objects.exists()


def test_too_many_lines_are_refused_before_any_is_taken(provisioner, now, settings):
    settings.USAGE_BATCH_EVENTS_MAX = 2
    lines = [json.dumps(started(name, now)) for name in "abc"]

    assert post(provisioner, "\n".join(lines), "application/x-ndjson").status_code == 400
    assert not UsageEvent.objects.exists()
    assert post(provisioner, "\n\n\n".join(lines[:2]), "application/x-ndjson").json()["accepted"] == 2


def test_too_many_events_too_large_a_body_and_foreign_content_types(provisioner, now, settings):
    settings.USAGE_BATCH_EVENTS_MAX = 2
    assert post(provisioner, [started(name, now) for name in "abc"]).status_code == 400
    assert post(provisioner, [started(name, now) for name in "ab"]).status_code == 200

    large = post(provisioner, b" " * (8 * 1024 * 1024 + 1))
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")
    fits = json.dumps(started("c", now)).encode().ljust(8 * 1024 * 1024)
    assert post(provisioner, fits).json()["accepted"] == 1
    assert post(provisioner, "a=1", "application/x-www-form-urlencoded").status_code == 415
    assert post(provisioner, [], "application/cloudevents+json").status_code == 400
    assert post(provisioner, started("d", now), "application/cloudevents-batch+json").status_code == 400


def test_who_may_send(organization, now):
    event = started("a", now)
    anonymous = post(build.client(), event)
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "token_missing")
    unscoped = post(build.client(build.integration(["pricing:manage"])), event)
    assert (unscoped.status_code, unscoped.json()["code"]) == (403, "insufficient_permissions")
    customer = post(build.client(build.api_key(organization)), event)
    assert (customer.status_code, customer.json()["code"]) == (403, "insufficient_permissions")
    assert not UsageEvent.objects.exists()


def test_a_failing_database_acknowledges_nothing(provisioner, now, monkeypatch):
    store = ingestion._store

    def store_and_fail(*arguments, **fields):
        store(*arguments, **fields)
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(ingestion, "_store", store_and_fail)
    response = post(provisioner, started("a", now))

    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert not UsageEvent.objects.exists()
    assert not DirtyBatch.objects.exists()


def test_an_empty_batch_is_no_error(provisioner):
    assert post(provisioner, []).json() == {"accepted": 0, "duplicates": 0, "rejected": 0, "errors": []}


def test_the_number_of_queries_does_not_grow_with_the_batch(
    provisioner, organization, now, django_assert_num_queries
):
    build.project(organization, "ml")
    batch = [started(f"a{number}", now, project="ml") for number in range(500)]
    post(provisioner, started("warm", now))

    # Credential 1; organizations, projects, regions 3; savepoints 2; resources 3; COPY 2.
    with django_assert_num_queries(11):
        assert post(provisioner, batch).json()["accepted"] == 500
