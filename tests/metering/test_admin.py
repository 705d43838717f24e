"""The staff admin of metering: every list and page opens, searches, and offers no change."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from apps.metering.models import DirtyBatch, MeteringState, Resource, UsageChange, UsageEvent, UsageHour
from tests.metering.events import EARLIER, heartbeat, minutes, reading, recorded, send, started, tick
from tests.staff import staff_client

MODELS = [UsageEvent, Resource, UsageHour, DirtyBatch, UsageChange, MeteringState]


@pytest.fixture
def rows(lab):
    send(
        recorded("a", EARLIER, EARLIER + minutes(90)),
        reading(EARLIER, "egress_gb", "1.5", subject="bucket"),
        heartbeat("late", EARLIER),
    )
    tick(lab.pk)
    send(started("b", EARLIER))
    return lab


@pytest.fixture
def staff(db):
    return staff_client()


def page(client: Client, model, pk: object = None, **query: str) -> str:
    """Return the list of a model, or the page of one row."""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_"
    url = reverse(f"{name}changelist") if pk is None else reverse(f"{name}change", args=[pk])
    response = client.get(url, query)
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.parametrize("model", MODELS)
def test_lists_and_pages_open_and_change_nothing(staff, rows, model):
    row = model.objects.order_by("pk")[0]
    listed = page(staff, model)
    shown = page(staff, model, row.pk)

    assert reverse("admin:organizations_organization_change", args=[rows.pk]) in listed
    assert 'name="_save"' not in shown
    assert "lab" in page(staff, model, q="lab")


def test_an_event_is_found_by_the_start_of_its_subject(staff, rows):
    assert "bucket" in page(staff, UsageEvent, q="buck")
    assert "bucket" not in page(staff, UsageEvent, q="nothing")


def test_a_resource_shows_its_intervals_and_what_was_ignored(staff, rows):
    shown = page(staff, Resource, Resource.objects.get(subject="a").pk)
    assert "2026-05-15 09:00:00 – 2026-05-15 10:30:00" in shown
    late = Resource.objects.get(subject="late")
    assert UsageEvent.objects.get(resource=late).event_id in page(staff, Resource, late.pk)
    assert "bucket" not in page(staff, Resource, state="running")
    assert "bucket" in page(staff, Resource, state="stopped")
