"""Staff find organizations, keys and what happened, and make the two things that only staff make."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.ids import uuid7
from apps.core.permissions import Role
from apps.credentials.models import ApiKey, Integration
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization, OrganizationSlug
from tests import build
from tests.staff import staff_client, staff_user
from tests.threads import at_once

pytestmark = pytest.mark.django_db
OURS = ("organizations", "credentials", "audit", "outbox")


@pytest.fixture
def staff():
    return staff_client()


@pytest.fixture
def rows(db):
    organization = build.organization("lab", name="The lab")
    build.member(organization)
    build.project(organization)
    build.api_key(organization, name="ci")
    build.integration(name="provisioner")
    build.tokens(build.user("lab@example.com"))
    return organization


def test_every_list_and_every_row_opens_and_can_be_searched(staff, rows):
    opened = 0
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label not in OURS:
            continue
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        assert staff.get(reverse(f"admin:{name}_changelist"), {"q": "lab"}).status_code == 200, name
        assert staff.get(reverse(f"admin:{name}_changelist"), {"q": rows.id}).status_code == 200, name
        row = model._default_manager.first()
        answer = staff.get(reverse(f"admin:{name}_change", args=[row.pk]))
        assert answer.status_code == 200, name
        assert "digest" not in answer.text, name
        opened += 1
        assert not model_admin.has_delete_permission(answer.wsgi_request)
    assert opened == 10


def test_the_page_of_an_organization_shows_its_newest_members_and_leads_to_all(staff, rows, monkeypatch):
    monkeypatch.setattr("apps.organizations.admin.NEWEST_ROWS", 3)
    for number in range(5):
        build.member(rows, user=build.user(f"member-{number}@example.com"))

    page = staff.get(reverse("admin:organizations_organization_change", args=[rows.pk])).text

    assert set(re.findall(r"member-\d", page)) == {"member-4", "member-3", "member-2"}
    everybody = f"{reverse('admin:organizations_membership_changelist')}?organization__id__exact={rows.pk}"
    assert f'href="{everybody}"' in page
    assert "member-0" in staff.get(everybody).text


def test_the_page_of_an_organization_costs_the_same_however_many_people(staff, rows):
    address = reverse("admin:organizations_organization_change", args=[rows.pk])
    owner = build.member(rows, Role.OWNER)

    def more_people():
        build.member(rows)
        organizations.invite(
            actor=build.user_actor(owner, rows),
            organization=rows,
            email=f"{uuid7()}@example.com",
            role=Role.VIEWER,
            now=timezone.now(),
        )

    def cost():
        with CaptureQueriesContext(connection) as queries:
            staff.get(address)
        return len(queries)

    more_people()
    few = cost()
    more_people()
    more_people()

    assert cost() == few


def test_an_organization_is_made_by_the_service(staff):
    answer = staff.post(
        reverse("admin:organizations_organization_add"),
        {"name": "New lab", "slug": "", "currency": "EUR", "timezone": "Europe/Oslo", "billing_email": ""},
    )

    assert answer.status_code == 302, re.findall(r"errorlist.*", answer.text)
    organization = Organization.objects.get(slug="new-lab")
    assert (organization.currency, organization.timezone) == ("EUR", "Europe/Oslo")
    assert organization.periods.count() == 1
    assert AuditEvent.objects.get(action="organization.created").actor_kind == "staff"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"slug": "lab"}, "taken"),
        ({"slug": "A b"}, "lower-case"),
        ({"currency": "XXY"}, "ISO 4217"),
        ({"name": " "}, "required"),
    ],
)
def test_mistakes_are_shown_beside_the_field(staff, rows, fields, wrong):
    form = {"name": "New", "slug": "", "currency": "EUR", "timezone": "UTC", "billing_email": ""}

    answer = staff.post(reverse("admin:organizations_organization_add"), form | fields)

    assert answer.status_code == 200
    assert wrong in answer.text
    assert Organization.objects.count() == 1


INTEGRATION = {
    "name": "provisioner",
    "scopes": ["usage:write"],
    "allowed_addresses": "10.0.0.0/8\n127.0.0.1",
    "expires_at_0": "",
    "expires_at_1": "",
}


def test_a_new_integration_shows_its_secret_once(staff):
    page = staff.get(reverse("admin:credentials_integration_add"))
    attempt = re.search(r'<input type="hidden" name="attempt" value="([0-9a-f-]{36})"', page.text)[1]
    answer = staff.post(page.request["PATH_INFO"], INTEGRATION | {"attempt": attempt})

    integration = Integration.objects.get()
    secret = re.search(r"ch_int_\w+", answer.text)[0]
    assert integration.allowed_addresses == ["10.0.0.0/8", "127.0.0.1/32"]
    assert build.client(secret).get("/api/v1/me").json()["credential"]["name"] == "provisioner"
    assert "no-store" in answer["Cache-Control"]
    assert secret not in str(answer.cookies)
    assert (
        secret not in staff.get(reverse("admin:credentials_integration_change", args=[integration.pk])).text
    )
    assert secret not in str(AuditEvent.objects.values())


@pytest.mark.django_db(transaction=True)
def test_one_form_at_once_makes_one_integration_and_leads_to_it():
    address, sent = reverse("admin:credentials_integration_add"), INTEGRATION | {"attempt": uuid7()}
    browsers = [staff_client(staff_user(f"{name}@example.com")) for name in ("ada", "bob", "cy")]

    answers = at_once(*[partial(browser.post, address, sent) for browser in browsers])

    made = Integration.objects.get()
    page = reverse("admin:credentials_integration_change", args=[made.pk])
    assert Counter(answer.status_code for answer in answers) == {200: 1, 302: 2}
    assert {answer.headers.get("Location", page) for answer in answers} == {page}
    again = browsers[0].post(address, sent, follow=True)
    assert "The secret was shown once." in again.text
    assert Integration.objects.get() == made


def test_a_key_is_revoked_by_an_action(staff, rows):
    key = ApiKey.objects.get()

    staff.post(
        reverse("admin:credentials_apikey_changelist"),
        {"action": "revoke_selected", "_selected_action": [str(key.pk)], "reason": "Published"},
    )

    key.refresh_from_db()
    assert key.revoked_at is not None
    event = AuditEvent.objects.get(action="api_key.revoked")
    assert (event.actor_kind, event.reason) == ("staff", "Published")


def test_slugs_are_listed_with_the_organization(staff, rows):
    OrganizationSlug.objects.create(slug="old-lab", organization=rows, retired_at=build.NOW)

    answer = staff.get(reverse("admin:organizations_organization_changelist"), {"q": "old-lab"})

    assert "The lab" in answer.text
    assert Membership.objects.count() == 1


def test_staff_suspend_with_a_reason(staff, rows):
    owner = build.member(rows, Role.OWNER)
    changelist = reverse("admin:organizations_organization_changelist")
    chosen = {"action": "suspend_selected", "_selected_action": [str(rows.pk)]}

    asked = staff.post(f"{changelist}?status=active", chosen | {"index": "0", "reason": " "})
    assert build.person_client(owner).get("/orgs/lab").status_code == 200
    assert "Say why" in asked.text
    assert "<li>lab</li>" in asked.text
    kept = dict(re.findall(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">', asked.text))
    assert kept.items() >= (chosen | {"_selected_action": str(rows.pk)}).items()
    done = staff.post(f"{changelist}?status=active", kept | {"reason": "fraud"})
    assert done.url == f"{changelist}?status=active"

    assert build.person_client(owner).get("/orgs/lab").json()["code"] == "organization_suspended"
    event = AuditEvent.objects.get(action="organization.suspended")
    assert (event.reason, event.actor_kind) == ("fraud", "staff")

    # The page of the organization offers the same, in fields with a prefix.
    page = reverse("admin:organizations_organization_change", args=[rows.pk])
    shown = staff.get(page).text
    assert "Resume: let members and keys in again" in shown
    assert '<div class="readonly">Suspended</div>' in shown
    resume = {"CHANGE_FORM-action": "resume_selected", "_selected_action": [str(rows.pk)]}
    asked = staff.post(page, resume | {"CHANGE_FORM-reason": ""})
    kept = dict(re.findall(r'<input type="hidden" name="([A-Za-z_-]+)" value="([^"]*)">', asked.text))
    done = staff.post(page, kept | {"CHANGE_FORM-reason": "cleared"})
    assert done.url == page
    assert build.person_client(owner).get("/orgs/lab").status_code == 200


def test_staff_change_the_time_zone_with_a_reason(staff, rows):
    url = reverse("admin:organizations_change_time_zone", args=[rows.pk])
    page = reverse("admin:organizations_organization_change", args=[rows.pk])
    assert url in staff.get(page).text

    staff.post(url, {"timezone": "Europe/Berlin", "reason": ""})
    staff.post(url, {"timezone": "Nowhere/Land", "reason": "moved"})
    assert Organization.objects.get(pk=rows.pk).timezone == "UTC"
    done = staff.post(url, {"timezone": "Europe/Berlin", "reason": "They moved."})

    assert done.headers["Location"] == page
    assert Organization.objects.get(pk=rows.pk).timezone == "Europe/Berlin"
    event = AuditEvent.objects.get(action="organization.timezone_changed")
    assert (event.actor_label, event.reason) == ("staff@example.com", "They moved.")
    assert event.diff == {"timezone": ["UTC", "Europe/Berlin"]}
