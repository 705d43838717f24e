"""The pages of projects and of settings: what they change, and what they refuse in words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.core.permissions import Role
from apps.identity import services as identity
from apps.organizations import services as organizations
from apps.organizations.models import (
    BillingProfile,
    Membership,
    Organization,
    OrganizationStatus,
    OwnershipOffer,
    Project,
)
from tests import build


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab")


@pytest.fixture
def owner(lab):
    return build.member(lab, Role.OWNER, user=build.user("owner@example.com", name="Olga Owner"))


@pytest.fixture
def client(owner):
    return build.browser(owner)


GENERAL = {"name": "Bright Lab", "slug": "lab", "billing_email": "", "timezone": "UTC"}
NOBODY = dict.fromkeys(
    ("legal_name", "line1", "line2", "postal_code", "city", "region", "country", "vat_id", "po_number"), ""
) | {"billing_emails": ""}


def test_projects_are_made_renamed_and_archived(client, lab):
    client.post("/app/lab/projects", {"slug": "", "name": "Training"})
    project = Project.objects.get()
    page = f"/app/lab/projects/{project.pk}"
    client.post(page, {"name": "Training runs", "archived": "on"})

    shown = client.get("/app/lab/projects").text
    assert "Training runs" in shown
    assert ">archived<" in shown
    client.post(page, {"name": "Training runs"})
    assert ">in use<" in client.get("/app/lab/projects").text


@pytest.mark.parametrize(
    ("slug", "said"), [("training", "This slug is taken."), ("No Slug", "A slug has up to 63")]
)
def test_a_refused_project_says_why(client, lab, slug, said):
    build.project(lab, "training")

    answer = client.post("/app/lab/projects", {"slug": slug, "name": "x"})

    assert (answer.status_code, Project.objects.count()) == (422, 1)
    assert said in answer.text


def test_projects_of_others_do_not_exist(client):
    foreign = build.project(build.organization("other"), "foreign")

    assert client.get(f"/app/lab/projects/{foreign.pk}").status_code == 404
    assert client.post(f"/app/lab/projects/{foreign.pk}", {"name": "mine"}).status_code == 404
    assert "foreign" not in client.get("/app/lab/projects").text


def test_settings_are_saved_and_a_new_slug_is_followed(client, lab):
    sent = GENERAL | {
        "name": "Brighter",
        "slug": "brighter",
        "timezone": "Europe/Oslo",
        "billing_email": "b@example.com",
    }

    answer = client.post("/app/lab/settings", sent, follow=True)

    assert answer.redirect_chain == [("/app/brighter/settings", 302)]
    lab.refresh_from_db()
    assert (lab.name, lab.slug, lab.timezone, lab.billing_email) == (
        "Brighter",
        "brighter",
        "Europe/Oslo",
        "b@example.com",
    )
    assert client.get("/app/lab/settings").headers["Location"] == "/app/brighter/settings"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slug": "other"}, "This slug is taken."),
        ({"slug": "account"}, "This slug is reserved."),
        ({"name": ""}, "Fill this in."),
        ({"timezone": "Mars/Base"}, "Choose one of those that are offered now."),
        ({"billing_email": "nobody"}, "Write an e-mail address, such as name@example.com."),
    ],
)
def test_wrong_settings_say_what_to_mend(client, lab, changes, said):
    build.organization("other")

    answer = client.post("/app/lab/settings", GENERAL | changes)

    assert answer.status_code == 422
    assert said in answer.text


def test_a_viewer_reads_the_settings_and_changes_nothing(lab, owner):
    viewer = build.browser(build.member(lab, Role.VIEWER))

    page = viewer.get("/app/lab/settings").text

    assert "Bright Lab" in page
    assert not any(word in page for word in ('name="timezone"', "Danger zone", 'name="require"'))
    assert viewer.post("/app/lab/settings", GENERAL).status_code == 403


def test_the_policy_says_who_has_no_second_factor_and_begins_after_a_grace_period(client, lab, owner):
    protected, _secret = identity.create_staff(email="safe@example.com", password="x", now=timezone.now())
    build.member(lab, Role.VIEWER, user=protected)
    page = client.get("/app/lab/settings").text
    assert "1 member has none:" in page
    assert "safe@example.com" not in page

    client.post("/app/lab/settings/second-factor", {"require": "yes"})
    lab.refresh_from_db()
    assert lab.require_mfa
    assert timedelta(days=6) < lab.mfa_grace_ends_at - timezone.now() <= timedelta(days=7)
    assert ">required soon<" in client.get("/app/lab/settings").text
    client.post("/app/lab/settings/second-factor", {"require": "no"})
    lab.refresh_from_db()
    assert not lab.require_mfa


def test_the_policy_asks_for_a_proof(lab, owner):
    answer = build.browser(owner, stepped_up=False).post(
        "/app/lab/settings/second-factor", {"require": "yes"}
    )

    assert answer.headers["Location"].startswith("/accounts/reauthenticate/")
    assert not Organization.objects.get().require_mfa


def test_billing_details_are_kept_and_a_wrong_vat_id_is_refused(client, lab):
    sent = NOBODY | {
        "legal_name": "Bright GmbH",
        "country": "DE",
        "vat_id": "de 136 695 976",
        "billing_emails": "a@example.com, b@example.com",
    }

    client.post("/app/lab/settings/billing", sent)
    profile = BillingProfile.objects.get()
    page = client.get("/app/lab/settings/billing").text
    refused = client.post("/app/lab/settings/billing", sent | {"vat_id": "DE136695977"})
    nobody = client.post("/app/lab/settings/billing", sent | {"billing_emails": "a@example.com\nnobody"})

    assert (profile.legal_name, profile.vat_id) == ("Bright GmbH", "DE136695976")
    assert profile.billing_emails == ["a@example.com", "b@example.com"]
    assert "VAT id not checked with the registry yet" in page
    assert '<option value="DE" selected>Germany</option>' in page
    assert refused.status_code == 422
    assert 'id="id_vat_id_error"' in refused.text
    assert nobody.status_code == 422
    assert "nobody is not an e-mail address." in nobody.text
    assert BillingProfile.objects.get().vat_id == "DE136695976"


def test_somebody_who_only_reads_billing_cannot_type(lab, owner):
    developer = build.browser(build.member(lab, Role.DEVELOPER))

    assert "disabled" in developer.get("/app/lab/settings/billing").text
    assert developer.post("/app/lab/settings/billing", NOBODY).status_code == 403


def test_handing_over_takes_an_offer_and_a_yes(client, lab, owner):
    heir = build.member(lab, Role.ADMIN, user=build.user("heir@example.com", name="Hal"))
    theirs = build.browser(heir)
    assert theirs.get("/app/lab/transfer/accept").status_code == 404

    assert client.post("/app/lab/transfer", {"member": ""}).status_code == 422, "nobody is chosen beforehand"
    client.post("/app/lab/transfer", {"member": str(Membership.objects.get(user=heir).pk)})
    assert "The ownership is offered to Hal." in client.get("/app/lab/settings").text
    assert "You are offered the ownership" in theirs.get("/app/lab").text
    assert "You are offered the ownership" not in client.get("/app/lab").text
    assert client.get("/app/lab/transfer/accept").status_code == 404, "the offer is not to them"
    theirs.post("/app/lab/transfer/accept")

    assert Membership.objects.get(user=heir).role == Role.OWNER
    assert Membership.objects.get(user=owner).role == Role.ADMIN


def test_an_offer_is_declined(client, lab, owner):
    heir = build.member(lab, Role.ADMIN)
    client.post("/app/lab/transfer", {"member": str(Membership.objects.get(user=heir).pk)})
    theirs = build.browser(heir)
    assert 'formaction="/app/lab/transfer/decline"' in theirs.get("/app/lab/transfer/accept").text
    assert client.post("/app/lab/transfer/decline").status_code == 404, "the offer is not to them"

    theirs.post("/app/lab/transfer/decline")

    assert not OwnershipOffer.objects.exists()
    assert "Nothing has changed." in theirs.get("/app/lab").text
    assert theirs.post("/app/lab/transfer/decline").status_code == 404
    assert Membership.objects.get(user=owner).role == Role.OWNER


def test_an_offer_is_taken_back(client, lab, owner):
    heir = build.member(lab, Role.ADMIN)
    client.post("/app/lab/transfer", {"member": str(Membership.objects.get(user=heir).pk)})
    assert "Take the offer back" in client.get("/app/lab/transfer").text

    client.post("/app/lab/transfer/withdraw")

    assert not OwnershipOffer.objects.exists()
    assert build.browser(heir).post("/app/lab/transfer/accept").status_code == 404


def test_the_link_to_an_offer_that_is_over_says_so(client, lab):
    heir = build.member(lab, Role.ADMIN)
    client.post("/app/lab/transfer", {"member": str(Membership.objects.get(user=heir).pk)})
    OwnershipOffer.objects.update(expires_at=timezone.now())

    answer = build.browser(heir).get("/app/lab/transfer/accept")

    assert answer.status_code == 404
    assert "This offer does not open" in answer.text
    assert "An owner can offer the organization again." in answer.text


def test_a_stranger_cannot_be_made_the_owner(client, lab):
    stranger = build.member(build.organization("other"), Role.VIEWER)

    answer = client.post("/app/lab/transfer", {"member": str(Membership.objects.get(user=stranger).pk)})

    assert (answer.status_code, OwnershipOffer.objects.exists()) == (422, False)


def test_deleting_takes_the_name(client, lab):
    wrong = client.post("/app/lab/delete", {"typed": "bright lab"})
    assert wrong.status_code == 422
    assert "Type Bright Lab." in wrong.text
    assert Organization.objects.get().status == OrganizationStatus.ACTIVE

    done = client.post("/app/lab/delete", {"typed": "Bright Lab"})

    assert done.headers["Location"] == "/app/"
    assert Organization.objects.get().status == OrganizationStatus.DELETED
    assert client.get("/app/lab").status_code == 404


def test_what_is_open_is_named_before_the_name_is_typed(client, lab, settings):
    settings.ORGANIZATION_DELETE_BLOCKERS = ["tests.organizations.test_settings_pages.blocker"]

    for answer in (client.get("/app/lab/delete"), client.post("/app/lab/delete", {"typed": "Bright Lab"})):
        assert 'An invoice is open. <a href="/app/lab/invoices">Invoices</a>' in answer.text
        assert 'name="typed"' not in answer.text
    assert answer.status_code == 422
    assert Organization.objects.get().status == OrganizationStatus.ACTIVE


def blocker(*, organization, now):
    assert organizations.resolve_organization("lab") == organization
    assert now
    return [("invoice_open", "An invoice is open.")]
