"""Organizations over REST: making, changing, handing over, deleting and bringing back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.billing import selectors as billing
from apps.core.permissions import Role
from apps.notifications.models import Mail
from apps.notifications.rendering import render
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization, OrganizationStatus, OwnershipOffer
from apps.outbox.models import OutboxEvent
from tests import build

pytestmark = pytest.mark.django_db
LAB = "/api/v1/orgs/lab"


@pytest.fixture
def lab():
    return build.organization("lab", name="The lab")


@pytest.fixture
def owner(lab):
    return build.member(lab, Role.OWNER)


def code(answer):
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("path", ["/api/v1/orgs", "/v1/orgs", "/orgs"])
def test_a_person_makes_an_organization_and_owns_it(path):
    person = build.user("ada@example.com")

    answer = build.person_client(person).post(path, {"name": "New lab"})

    assert answer.status_code == 201
    made = Organization.objects.get()
    assert answer.json() == {
        "id": str(made.id),
        "slug": "new-lab",
        "name": "New lab",
        "status": "active",
        "billing_email": "ada@example.com",
        "currency": "USD",
        "timezone": "UTC",
        "plan": "free",
        "billing_state": "healthy",
        "require_mfa": False,
        "mfa_grace_ends_at": None,
        "created_at": answer.json()["created_at"],
    }
    assert Membership.objects.values_list("user", "role", "is_default").get() == (person.pk, "owner", True)
    assert AuditEvent.objects.get(action="organization.created").actor_id == person.pk


def test_making_twice_with_one_key_makes_one():
    client = build.person_client(build.user(), X_Idempotency_Key="once")

    first, second = client.post("/orgs", {"name": "Lab"}), client.post("/orgs", {"name": "Lab"})

    assert (first.status_code, second.status_code) == (201, 201)
    assert (first.json(), second["Idempotent-Replayed"]) == (second.json(), "true")
    assert Organization.objects.count() == 1


def test_a_key_makes_no_organization(lab):
    answer = build.client(build.api_key(lab)).post("/orgs", {"name": "Other"})

    assert code(answer) == (403, "insufficient_permissions")
    assert Organization.objects.count() == 1


def test_what_is_wrong_is_named(lab):
    answer = build.person_client(build.user()).post("/orgs", {"slug": "A b", "billing_email": "nobody"})

    assert answer.status_code == 422
    paths = {field["path"] for field in answer.json()["details"]["fields"]}
    assert paths == {"name", "billing_email"}
    assert code(build.person_client(build.user()).post("/orgs", {"name": "x", "slug": "lab"})) == (
        409,
        "slug_taken",
    )


def test_everybody_lists_what_they_have_a_part_in(lab, owner):
    other = build.organization("other")
    build.member(other, Role.VIEWER, user=owner)
    build.organization("foreign")
    gone = build.organization("gone")
    build.member(gone, Role.OWNER, user=owner)
    Organization.objects.filter(pk=gone.pk).update(status=OrganizationStatus.DELETED)

    def listed(client):
        return [row["slug"] for row in client.get("/orgs", {"sort": "slug"}).json()["data"]]

    assert listed(build.person_client(owner)) == ["lab", "other"]
    assert listed(build.client(build.api_key(lab, ["usage.read"]))) == ["lab"]
    assert listed(build.client(build.integration(["organization.read"]))) == ["foreign", "lab", "other"]
    assert listed(build.client(build.integration(["usage:write"]))) == []


def test_a_change_is_kept_audited_and_told(lab, owner):
    answer = build.person_client(owner).patch(
        LAB, {"name": "Big lab", "billing_email": "pay@example.com", "timezone": "Europe/Oslo"}
    )

    assert answer.status_code == 200
    assert [answer.json()[name] for name in ("name", "billing_email", "timezone")] == [
        "Big lab",
        "pay@example.com",
        "Europe/Oslo",
    ]
    assert AuditEvent.objects.get(action="organization.changed").diff == {
        "name": ["The lab", "Big lab"],
        "billing_email": ["", "pay@example.com"],
    }
    assert OutboxEvent.objects.filter(event_type="organizations.organization_updated").count() == 2


def test_changing_to_what_is_writes_nothing(lab, owner):
    before = AuditEvent.objects.count()

    assert build.person_client(owner).patch(LAB, {"name": "The lab", "slug": "lab"}).status_code == 200

    assert AuditEvent.objects.count() == before


def test_a_slug_given_up_leads_on_is_nobody_elses_and_can_be_taken_back(lab, owner):
    client = build.person_client(owner)

    assert client.patch(LAB, {"slug": "big-lab"}).json()["slug"] == "big-lab"

    assert client.get(LAB).json()["slug"] == "big-lab"
    assert client.get("/orgs/big-lab").json()["slug"] == "big-lab"
    assert code(client.post("/orgs", {"name": "Thief", "slug": "lab"})) == (409, "slug_taken")
    assert client.patch("/orgs/big-lab", {"slug": "lab"}).json()["slug"] == "lab"
    assert lab.slugs.get(retired_at=None).slug == "lab"
    assert code(client.post("/orgs", {"name": "Thief", "slug": "big-lab"})) == (409, "slug_taken")


def test_only_a_person_who_has_just_proved_themselves_asks_for_second_factors(lab, owner):
    body = {"require_mfa": True}

    assert code(build.client(build.api_key(lab)).patch(LAB, body)) == (403, "insufficient_permissions")
    assert code(build.person_client(owner, stepped_up=False).patch(LAB, body)) == (403, "step_up_required")
    answer = build.person_client(owner).patch(LAB, body)

    assert answer.json()["require_mfa"] is True
    assert answer.json()["mfa_grace_ends_at"] is not None
    cleared = build.person_client(owner).patch(LAB, {"require_mfa": False}).json()
    assert cleared["mfa_grace_ends_at"] is None


def test_after_the_grace_members_without_a_second_factor_are_stopped(lab, owner):
    client = build.person_client(owner)
    client.patch(LAB, {"require_mfa": True})

    assert client.get(LAB).status_code == 200
    Organization.objects.update(mfa_grace_ends_at=timezone.now())
    assert code(client.get(LAB)) == (403, "mfa_enrollment_required")
    assert build.client(build.api_key(lab)).get(LAB).status_code == 200


# Ownership


def test_ownership_is_offered_and_accepted(lab, owner):
    heir = build.member(lab, Role.VIEWER)
    member = Membership.objects.get(user=heir)

    offered = build.person_client(owner).post(f"{LAB}/transfer", {"member": str(member.id)})

    assert (offered.status_code, offered.json()["member"]) == (201, str(member.id))
    assert code(build.person_client(owner).post(f"{LAB}/transfer/accept")) == (404, "not_found")
    accepted = build.person_client(heir).post(f"{LAB}/transfer/accept")
    assert (accepted.status_code, accepted.json()["role"]) == (200, "owner")
    roles = dict(Membership.objects.values_list("user", "role"))
    assert roles == {owner.pk: "admin", heir.pk: "owner"}
    assert code(build.person_client(heir).post(f"{LAB}/transfer/accept")) == (404, "not_found")
    assert AuditEvent.objects.filter(action="organization.transferred").count() == 1


@pytest.mark.parametrize("spoil", ["expired", "withdrawn", "declined", "demoted", "suspended", "replaced"])
def test_an_offer_that_no_longer_stands_is_none(lab, owner, spoil):
    heir = build.member(lab, Role.VIEWER)
    second_owner = build.member(lab, Role.OWNER)
    client = build.person_client(owner)
    client.post(f"{LAB}/transfer", {"member": str(Membership.objects.get(user=heir).id)})

    if spoil == "expired":
        OwnershipOffer.objects.update(created_at=build.NOW, expires_at=timezone.now())
    elif spoil == "withdrawn":
        assert client.delete(f"{LAB}/transfer").status_code == 204
    elif spoil == "declined":
        assert code(client.post(f"{LAB}/transfer/decline")) == (404, "not_found")
        assert build.person_client(heir).post(f"{LAB}/transfer/decline").status_code == 204
        assert AuditEvent.objects.filter(action="organization.transfer_declined").count() == 1
    elif spoil == "replaced":
        client.post(f"{LAB}/transfer", {"member": str(Membership.objects.get(user=second_owner).id)})
    else:
        change = {"role": "admin"} if spoil == "demoted" else {"suspended": True}
        member = Membership.objects.get(user=owner)
        assert (
            build.person_client(second_owner).patch(f"{LAB}/members/{member.id}", change).status_code == 200
        )

    assert code(build.person_client(heir).post(f"{LAB}/transfer/accept")) == (404, "not_found")
    assert Membership.objects.get(user=heir).role == "viewer"
    told = Mail.objects.filter(template="organizations/mail/offer_ended")
    hears_of_it = [] if spoil in {"expired", "declined"} else [heir.email]
    assert list(told.values_list("recipient", flat=True)) == hears_of_it
    for mail in told:
        said = render(mail.template, mail.context)
        assert said.subject == "The ownership of The lab is no longer offered to you"
        assert "your role stays as it is.\n\nhttp" in said.text


def test_an_offer_that_is_over_made_again_or_to_a_leaver_ends_without_a_word(lab, owner):
    heir = build.member(lab, Role.VIEWER)
    member = Membership.objects.get(user=heir)
    client = build.person_client(owner)

    for _twice in range(2):
        client.post(f"{LAB}/transfer", {"member": str(member.id)})
    OwnershipOffer.objects.update(created_at=build.NOW, expires_at=timezone.now())
    assert client.delete(f"{LAB}/transfer").status_code == 204
    client.post(f"{LAB}/transfer", {"member": str(member.id)})
    assert client.delete(f"{LAB}/members/{member.id}").status_code == 204

    assert not OwnershipOffer.objects.exists()
    templates = Mail.objects.filter(template__startswith="organizations/").values_list("template", flat=True)
    assert list(templates) == ["organizations/mail/offer"] * 3


def test_ownership_is_offered_to_members_only(lab, owner):
    stranger = build.member(build.organization("other"))
    for person in (stranger, owner):
        member = Membership.objects.get(user=person)
        answer = build.person_client(owner).post(f"{LAB}/transfer", {"member": str(member.id)})
        assert code(answer) == (422, "validation_error")
    assert not OwnershipOffer.objects.exists()


# Deleting


def test_a_deleted_organization_is_gone_for_customers_until_staff_restore_it(lab, owner):
    client, machine = build.person_client(owner), build.client(build.api_key(lab))

    assert client.delete(LAB).status_code == 204

    assert client.get(LAB).status_code == 404
    assert client.get("/orgs").json()["data"] == []
    assert machine.get(LAB).status_code == 404
    assert code(client.post("/orgs", {"name": "Lab", "slug": "lab"})) == (409, "slug_taken")
    deleted = Organization.objects.get()
    organizations.restore_organization(
        actor=build.actor(), organization=deleted, reason="asked", now=deleted.deleted_at + timedelta(days=29)
    )
    assert client.get(LAB).status_code == 200
    assert machine.get(LAB).status_code == 200


def test_every_member_hears_of_the_deletion_and_of_the_return(lab, owner):
    viewer = build.member(lab, Role.VIEWER)
    build.client(build.api_key(lab))
    build.person_client(owner).delete(LAB)
    deleted = Organization.objects.get()
    organizations.restore_organization(
        actor=build.actor(), organization=deleted, reason="asked", now=deleted.deleted_at
    )

    told = Mail.objects.filter(template__startswith="organizations/mail/").order_by("pk")
    assert [(mail.template.rpartition("/")[2], mail.recipient) for mail in told] == [
        ("deleted", owner.email),
        ("deleted", viewer.email),
        ("restored", owner.email),
        ("restored", viewer.email),
    ]
    gone, back = (render(mail.template, mail.context) for mail in (told[0], told[3]))
    assert gone.subject == f"{deleted.name} was deleted"
    assert f"By: {owner.email}" in gone.text
    assert f"{deleted.deleted_at + timedelta(days=30):%Y}" in gone.text.partition("until:")[2]
    assert back.subject == f"{deleted.name} is back"
    assert "/app/lab" in back.text


def test_after_thirty_days_nothing_is_restored(lab):
    now = timezone.now()
    with pytest.raises(organizations.NotRestorable):
        organizations.restore_organization(actor=build.actor(), organization=lab, reason="x", now=now)
    organizations.delete_organization(actor=build.actor(), organization=lab, now=now)

    with pytest.raises(organizations.NotRestorable):
        organizations.restore_organization(
            actor=build.actor(), organization=lab, reason="late", now=now + timedelta(days=30)
        )


def test_open_business_stands_against_deleting(lab, owner):
    build.credit(lab, "5.00", now=timezone.now())

    answer = build.person_client(owner).delete(LAB)

    assert code(answer) == (409, "organization_has_open_business")
    assert [blocker["code"] for blocker in answer.json()["details"]["blockers"]] == ["credit_left"]
    assert Organization.objects.get().status == "active"


def test_usage_that_no_tick_has_counted_stands_against_deleting(lab):
    now = timezone.now().replace(microsecond=0)
    build.usage(lab, now - timedelta(hours=2), now - timedelta(hours=1), now=now)

    assert [blocker["code"] for blocker in organizations.open_business(organization=lab, now=now)] == [
        "usage_running"
    ]


def test_usage_that_is_charged_while_the_balance_is_read_stands_against_deleting(lab, monkeypatch):
    now = timezone.now().replace(microsecond=0)
    build.price_book({"unit_price": "2"})
    build.usage(lab, now - timedelta(hours=3), now - timedelta(hours=2), now=now)

    def charged_meanwhile(organization, *, now):
        found = balance(organization, now=now)
        build.metered(organization, now)
        return found

    balance = billing.balance
    monkeypatch.setattr(billing, "balance", charged_meanwhile)

    assert [blocker["code"] for blocker in organizations.open_business(organization=lab, now=now)] == [
        "usage_running"
    ]


def test_what_is_owed_and_open_invoices_stand_against_deleting():
    start = build.NOW.replace(month=3, day=10)
    lab = build.organization("lab", now=start)
    build.price_book({"model": "per_unit", "unit_price": "2"})
    build.usage(lab, start, start + timedelta(hours=2), now=start + timedelta(hours=2))
    build.metered(lab, build.NOW)
    build.closed(lab, "2026-03", now=build.NOW)

    with pytest.raises(organizations.HasOpenBusiness) as refusal:
        organizations.delete_organization(actor=build.actor(), organization=lab, now=build.NOW)

    assert [blocker["code"] for blocker in refusal.value.details["blockers"]] == [
        "balance_owed",
        "invoice_open",
    ]


@pytest.mark.parametrize(
    ("country", "said"),
    [
        # 4.00 × 24 % = 0.96.
        ("GR", "The invoice of 2026-04 will ask for 0.96 EUR of tax on what was used."),
        ("NO", "The tax on the invoice of 2026-04 is not known yet. Ask support for it."),
    ],
)
def test_tax_to_come_on_used_up_credit_stands_against_deleting(country, said):
    start = build.NOW.replace(month=4, day=10)
    lab = build.organization("lab", currency="EUR", now=start)
    build.seller(country="GR", vat_id="EL094259216", tax_registrations=["NO"])
    build.billing_profile(lab, legal_name="Lab", country=country)
    build.price_book({"unit_price": "2"}, currency="EUR")
    build.credit(lab, "4.00", now=start)
    build.usage(lab, start, start + timedelta(hours=2), now=start + timedelta(hours=2))
    build.metered(lab, start + timedelta(hours=3))

    with pytest.raises(organizations.HasOpenBusiness) as refusal:
        organizations.delete_organization(
            actor=build.actor(), organization=lab, now=start + timedelta(hours=3)
        )

    (blocker,) = refusal.value.details["blockers"]
    assert blocker["code"] == "tax_to_come"
    assert said in blocker["message"]


@pytest.mark.parametrize("drafted", [False, True])
def test_tax_to_come_on_what_is_used_late_stands_against_deleting(drafted):
    start = build.NOW.replace(month=3, day=10)
    lab = build.organization("lab", currency="EUR", now=start)
    build.seller(country="GR", vat_id="EL094259216")
    build.billing_profile(lab, legal_name="Lab", country="GR")
    build.price_book({"unit_price": "2"}, currency="EUR")
    # 4.00 and 24 % of tax for two hours in time, 2.00 for one that comes late.
    build.credit(lab, "6.96", now=start)
    build.usage(lab, start, start + timedelta(hours=2), now=start + timedelta(hours=2))
    later = build.NOW.replace(month=4, day=20)
    build.closed(lab, "2026-03", now=later)
    late = start + timedelta(days=1)
    if drafted:
        later = build.NOW.replace(month=5, day=1, hour=2)
        build.closed(lab, "2026-04", finalize=False, now=later)
        late = later - timedelta(days=3)
    build.usage(lab, late, late + timedelta(hours=1), now=later)
    build.metered(lab, later)

    (blocker,) = organizations.open_business(organization=lab, now=later)

    assert blocker["code"] == "tax_to_come"
    assert "The invoice of 2026-04 will ask for 0.48 EUR" in blocker["message"]


def test_used_up_credit_without_tax_stands_against_nothing():
    start = build.NOW.replace(month=4, day=10)
    lab = build.organization("lab", now=start)
    build.price_book({"unit_price": "2"})
    build.credit(lab, "4.00", now=start)
    build.usage(lab, start, start + timedelta(hours=2), now=start + timedelta(hours=2))
    build.metered(lab, start + timedelta(hours=3))

    organizations.delete_organization(actor=build.actor(), organization=lab, now=start + timedelta(hours=3))

    assert Organization.objects.get().status == "deleted"
