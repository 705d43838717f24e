"""What surrounds every page: the way in, the switcher, the banner, the refusals, and how much it weighs."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.test import Client
from django.utils import timezone

from apps.core.permissions import Role
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization
from tests import build

# Compressed, as they are served.
STYLES_BYTES_MAX = 12_000
SCRIPTS_BYTES_MAX = 24_000


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab")


def require_second_factor(organization, *, in_force: bool) -> None:
    ends_at = timezone.now() + timedelta(days=-1 if in_force else 3)
    Organization.objects.filter(pk=organization.pk).update(require_mfa=True, mfa_grace_ends_at=ends_at)


def test_the_way_in_is_the_default_organization(lab):
    person = build.member(build.organization("other"), Role.VIEWER)
    build.member(lab, Role.OWNER, user=person)

    assert build.browser(person).get("/app/").headers["Location"] == "/app/other"
    assert build.browser(build.user()).get("/app/").headers["Location"] == "/app/new"


def test_switching_makes_it_the_default_and_takes_only_ones_own(lab):
    person = build.member(build.organization("other"))
    build.member(lab, user=person)
    build.organization("foreign")
    client = build.browser(person)

    assert client.post("/app/switch", {"organization": "lab"}).headers["Location"] == "/app/lab"
    assert Membership.objects.get(user=person, is_default=True).organization == lab
    for slug in ("foreign", "nowhere", ""):
        assert client.post("/app/switch", {"organization": slug}).status_code == 404
    assert client.get("/app/switch").status_code == 405


def test_switching_stays_in_the_section_that_one_may_see_there(lab):
    person = build.member(build.organization("other"), Role.OWNER)
    build.member(lab, Role.VIEWER, user=person)
    client = build.browser(person)
    assert '<input type="hidden" name="section" value="invoices">' in client.get("/app/other/invoices").text

    def there(section):
        sent = {"organization": "lab", "section": section}
        return client.post("/app/switch", sent).headers["Location"]

    assert there("invoices") == "/app/lab/invoices"
    assert there("audit") == "/app/lab", "a viewer does not see it"
    assert there("security") == there("nowhere") == "/app/lab"


def test_somebody_makes_an_organization_and_is_there(lab):
    client = build.browser(build.user())

    made = client.post("/app/new", {"name": "Delta Works", "slug": ""})
    page = client.get(made.headers["Location"])

    assert made.headers["Location"] == "/app/delta-works"
    assert "Delta Works is ready." in page.text
    assert "Owner" in page.text


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"name": " ", "slug": ""}, "Fill this in."),
        ({"name": "Lab", "slug": "lab"}, "This slug is taken."),
        ({"name": "Lab", "slug": "invites"}, "This slug is reserved."),
        ({"name": "Lab", "slug": "No Slug"}, "A slug has up to 63 lower-case letters"),
    ],
)
def test_a_wrong_organization_says_what_to_mend_and_keeps_what_was_sent(lab, sent, said):
    answer = build.browser(build.user()).post("/app/new", sent)

    assert answer.status_code == 422
    assert said in answer.text
    assert f'value="{sent["slug"]}"' in answer.text or not sent["slug"]
    assert Organization.objects.count() == 1


def test_a_retired_slug_leads_to_the_current_one_for_members_only(lab):
    member = build.member(lab, Role.OWNER)
    organizations.change_organization(
        actor=build.actor(lab), organization=lab, slug="brighter", now=timezone.now()
    )

    assert (
        build.browser(member).get("/app/lab?month=2026-05").headers["Location"]
        == "/app/brighter?month=2026-05"
    )
    assert build.browser(build.user()).get("/app/lab").status_code == 404


def test_a_member_without_a_second_factor_is_warned_and_then_stopped(lab):
    client = build.browser(build.member(lab, Role.OWNER))
    require_second_factor(lab, in_force=False)
    warned = client.get("/app/lab")
    require_second_factor(lab, in_force=True)
    stopped = client.get("/app/lab?month=1")

    assert (warned.status_code, stopped.status_code) == (200, 403)
    assert "You have none yet" in warned.text
    assert "A second factor is needed here" in stopped.text
    assert 'href="/app/account/enrol?next=/app/lab%3Fmonth%3D1"' in stopped.text
    assert "Bright Lab" in stopped.text


def test_a_refusal_names_the_role_and_the_permission(lab, monkeypatch):
    from apps.core.permissions import Permission
    from apps.portal.views.overview import Overview

    monkeypatch.setattr(Overview, "permission", Permission.ORGANIZATION_DELETE)

    page = build.browser(build.member(lab, Role.DEVELOPER)).get("/app/lab")

    assert page.status_code == 403
    assert "This needs the role Owner; in Bright Lab you are Developer." in page.text


def test_pages_are_not_kept_by_any_cache(lab):
    page = build.browser(build.member(lab, Role.OWNER)).get("/app/lab")

    assert "no-store" in page.headers["Cache-Control"]


def test_login_leads_back_to_the_page(lab):
    asked = Client().get("/app/lab?month=2026-05")

    assert asked.headers["Location"] == "/accounts/login/?next=/app/lab%3Fmonth%3D2026-05"


def test_a_page_weighs_little(lab):
    page = build.browser(build.member(lab, Role.OWNER)).get("/app/lab").text

    def bytes_of(pattern: str) -> int:
        paths = [finders.find(name) for name in re.findall(pattern, page)]
        assert all(paths)
        return sum(len(gzip.compress(Path(str(path)).read_bytes())) for path in paths)

    static = re.escape(settings.STATIC_URL)
    assert 0 < bytes_of(rf'href="{static}([^"]+\.css)"') < STYLES_BYTES_MAX
    assert 0 < bytes_of(rf'src="{static}([^"]+\.js)"') < SCRIPTS_BYTES_MAX
