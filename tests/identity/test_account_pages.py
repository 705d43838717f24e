"""The pages of one's own account: profile, sessions, address, enrolment, deletion."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial

import pytest
from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.core import mail
from django.test import Client
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.permissions import Role
from apps.credentials.models import ApiKey
from apps.identity import services
from apps.identity.browsers import browser_name
from apps.identity.models import User
from apps.notifications.models import Mail
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization
from tests import build
from tests.identity.codes import code_at
from tests.threads import at_once

PASSWORD = "correct horse battery"
ADA = "ada@example.com"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def ada(db):
    return build.user(ADA, password=PASSWORD, name="Ada")


def logged_in(email=ADA, **headers) -> Client:
    """Return a browser that has logged in with its password."""
    browser = Client(headers=headers)
    assert browser.post("/accounts/login/", {"login": email, "password": PASSWORD}).status_code == 302
    return browser


def is_logged_in(browser) -> bool:
    return browser.get("/app/account/profile").status_code == 200


def actions() -> list[str]:
    return list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))


def sent() -> dict[str, list[str]]:
    """Return the changes that were mailed, by recipient."""
    found: dict[str, list[str]] = {}
    for row in Mail.objects.order_by("pk"):
        found.setdefault(row.recipient, []).append(row.context.get("change", row.template))
    return found


# Profile


def test_the_name_is_changed_and_written_down(ada):
    browser = logged_in()

    answer = browser.post("/app/account/profile", {"name": "  Ada   Lovelace "}, follow=True)

    assert "Your profile is changed." in answer.text
    assert User.objects.get().name == "Ada Lovelace"
    assert AuditEvent.objects.get(action="user.profile_changed").diff == {"name": ["Ada", "Ada Lovelace"]}
    assert browser.post("/app/account/profile", {"name": "a\u202eb"}).status_code == 422
    assert User.objects.get().name == "Ada Lovelace"


# Sessions


def test_sessions_are_listed_and_end_one_by_one(ada):
    here, there = logged_in(), logged_in(user_agent=FIREFOX)

    page = here.get("/app/account/security").text
    assert "Firefox on Linux" in page
    assert "this browser" in page
    assert page.count("127.0.0.1") >= 2
    other = UserSession.objects.get(user_agent=FIREFOX)
    here.post(f"/app/account/security/sessions/{other.pk}/end")

    assert not is_logged_in(there)
    assert is_logged_in(here)
    assert AuditEvent.objects.get(action="session.ended").diff == {"address": "127.0.0.1", "browser": FIREFOX}


def test_every_other_login_ends_at_once(ada):
    here, *others = logged_in(), logged_in(), logged_in()
    bob = build.user("bob@example.com", password=PASSWORD)
    program, of_another = build.tokens(ada, PASSWORD), build.tokens(bob, PASSWORD)

    here.post("/app/account/security/sessions/end-others")

    assert is_logged_in(here)
    assert not any(is_logged_in(browser) for browser in others)
    assert build.client(program.access_token).get("/api/v1/me").status_code == 401
    refused = build.client().post("/auth/refresh", {"refresh_token": program.refresh_token})
    assert refused.status_code == 401
    assert build.client(of_another.access_token).get("/api/v1/me").status_code == 200


def test_nobody_ends_the_session_of_another(ada):
    build.user("bob@example.com", password=PASSWORD)
    bob, mine = logged_in("bob@example.com"), logged_in()
    target = UserSession.objects.get(user=ada)

    assert bob.post(f"/app/account/security/sessions/{target.pk}/end").status_code == 404
    assert bob.post("/app/account/security/sessions/999999/end").status_code == 404
    assert is_logged_in(mine)


def test_programs_are_listed_and_end_one_by_one(ada):
    tokens, over = build.tokens(ada, PASSWORD), build.tokens(ada, PASSWORD)
    build.client(over.access_token).post("/auth/logout")
    browser = logged_in()
    (row,) = browser.get("/app/account/security").context["programs"]
    assert (row.name, row.address) == ("tests", "127.0.0.1")

    done = browser.post(f"/app/account/security/programs/{row.id}/end", follow=True)

    assert "That program is logged out." in done.text
    assert done.context["programs"] == []
    assert build.client(tokens.access_token).get("/api/v1/me").status_code == 401
    refused = build.client().post("/auth/refresh", {"refresh_token": tokens.refresh_token})
    assert refused.status_code == 401
    assert actions().count("token.revoked") == 2


def test_nobody_ends_the_program_of_another(ada):
    build.user("bob@example.com", password=PASSWORD)
    tokens = build.tokens(ada, PASSWORD)
    target = logged_in().get("/app/account/security").context["programs"][0].id
    bob = logged_in("bob@example.com")

    assert bob.get("/app/account/security").context["programs"] == []
    assert bob.post(f"/app/account/security/programs/{target}/end").status_code == 404
    assert build.client(tokens.access_token).get("/api/v1/me").status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1",
            "Safari on iPhone",
        ),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "Unknown browser"),
    ],
)
def test_browsers_have_names(header, name):
    assert browser_name(header) == name


# Password


def test_a_new_password_ends_what_the_old_one_opened(ada, run_jobs):
    here, there = logged_in(), logged_in()
    tokens = build.tokens(ada, PASSWORD)
    new = "another horse battery"

    done = here.post(
        "/accounts/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new}
    )

    assert done.status_code == 302
    assert is_logged_in(here)
    assert not is_logged_in(there)
    assert build.client(tokens.access_token).get("/api/v1/me").status_code == 401
    refused = build.client().post("/auth/refresh", {"refresh_token": tokens.refresh_token})
    assert refused.status_code == 401
    assert "user.password_changed" in actions()
    assert sent()[ADA].count("Your password was changed.") == 1


# Address


def link() -> str:
    return re.search(r"https?://[^/\s]+(/accounts/confirm-email/\S+)", mail.outbox[-1].body)[1]


def test_a_new_address_counts_once_confirmed_and_both_are_told(ada, run_jobs):
    browser = logged_in()

    browser.post("/accounts/email/", {"email": "Countess@Example.com", "action_add": ""})
    assert mail.outbox[0].to == ["countess@example.com"]
    assert User.objects.get().email == ADA
    assert "A link is on its way to countess@example.com." in browser.get("/accounts/email/").text
    assert Client().get(link()).status_code == 200
    assert User.objects.get().email == ADA  # Looking changes nothing.
    Client().post(link())

    assert User.objects.get().email == "countess@example.com"
    assert [row.email for row in EmailAddress.objects.all()] == ["countess@example.com"]
    sentence = "Your e-mail address was changed from ada@example.com to countess@example.com."
    assert sent() == {ADA: [sentence], "countess@example.com": [sentence]}
    changed = AuditEvent.objects.get(action="user.email_changed")
    assert changed.diff == {"email": [ADA, "countess@example.com"]}
    assert is_logged_in(logged_in("countess@example.com"))


def test_an_address_that_waits_to_be_confirmed_logs_nobody_in(ada):
    logged_in().post("/accounts/email/", {"email": "waiting@example.com", "action_add": ""})

    refused = Client().post("/accounts/login/", {"login": "waiting@example.com", "password": PASSWORD})

    assert refused.status_code == 200
    assert "not correct" in refused.text


def test_an_address_of_somebody_else_is_taken_without_a_word_and_never_given(ada):
    build.user("bob@example.com")
    browser = logged_in()

    free = browser.post("/accounts/email/", {"email": "free@example.com", "action_add": ""})
    taken = browser.post("/accounts/email/", {"email": "bob@example.com", "action_add": ""})

    assert (free.status_code, free.headers["Location"]) == (taken.status_code, taken.headers["Location"])
    Client().post(link())
    assert User.objects.get(pk=ada.pk).email == ADA


def test_a_new_address_needs_a_recent_proof(ada):
    _user, secret = services.create_staff(email=ADA, password=PASSWORD, now=timezone.now())
    browser = Client()
    browser.force_login(User.objects.get())

    asked = browser.post("/accounts/email/", {"email": "new@example.com", "action_add": ""})

    assert asked.headers["Location"].startswith("/accounts/2fa/reauthenticate/")
    assert not EmailAddress.objects.filter(email="new@example.com").exists()
    browser.post(
        asked.headers["Location"], {"code": code_at(secret, timezone.now()), "next": "/accounts/email/"}
    )
    assert EmailAddress.objects.filter(email="new@example.com").exists()


# Enrolment


def test_a_member_stopped_by_the_policy_enrols_and_comes_back(transactional_db):
    ada = build.user(ADA, password=PASSWORD, name="Ada")
    lab = build.organization("lab", owner=ada)
    organizations.change_organization(
        actor=build.actor(lab), organization=lab, require_mfa=True, now=timezone.now() - timedelta(days=8)
    )
    browser = logged_in()

    stopped = browser.get("/app/lab/members")
    assert stopped.status_code == 403
    choice = re.search(r'href="(/app/account/enrol\?next=[^"]+)"', stopped.text)[1]
    assert "Add a passkey" in browser.get(choice).text
    form = browser.get("/accounts/2fa/totp/activate/")
    secret = form.context["form"].secret
    shown = browser.post(
        "/accounts/2fa/totp/activate/", {"code": code_at(secret, timezone.now())}, follow=True
    )

    assert "You will not see these again" in shown.text
    back = browser.get("/accounts/2fa/")
    assert back.headers["Location"] == "/app/lab/members"
    assert browser.get("/app/lab/members").status_code == 200
    assert "mfa.totp_added" in actions()
    assert browser.get("/accounts/2fa/").headers["Location"] == "/app/account/security"


def test_enrolment_leads_to_no_other_site(ada):
    services.create_staff(email=ADA, password=PASSWORD, now=timezone.now())
    browser = Client()
    browser.force_login(User.objects.get())

    for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
        assert (
            browser.get("/app/account/enrol", {"next": target}).headers["Location"] == "/app/account/security"
        )
    assert browser.get("/app/account/enrol?next=/app/invites").headers["Location"] == "/app/invites"


# Deletion


def test_deleting_erases_the_person_and_keeps_what_they_did(ada, run_jobs):
    lab = build.organization("lab")
    owner = build.member(lab, Role.OWNER)
    build.member(lab, Role.DEVELOPER, user=ada)
    key = build.api_key(lab, ["projects.read"], actor=build.user_actor(ada, lab))
    tokens = build.tokens(ada, PASSWORD)
    browser, other = logged_in(), logged_in()

    done = browser.post("/app/account/delete", {"confirmation": "ADA@example.com"}, follow=True)

    assert "Your account is deleted." in done.text
    ada.refresh_from_db()
    assert (ada.email, ada.name, ada.is_active) == (f"{ada.pk.hex}@deleted.invalid", "", False)
    assert not ada.has_usable_password()
    assert not Membership.objects.filter(user=ada).exists()
    assert not EmailAddress.objects.filter(user=ada).exists()
    assert not is_logged_in(other)
    assert not is_logged_in(browser)
    assert build.client(tokens.access_token).get("/api/v1/me").status_code == 401
    assert build.client(key).get("/orgs/lab/projects").status_code == 401
    assert ApiKey.objects.get().revoked_at is not None
    assert AuditEvent.objects.get(action="user.deleted").actor_label == ADA
    assert set(sent()) == {ADA, owner.email}  # The owner is told whose key ended.
    assert sent()[ADA][-1] == "identity/mail/account_deleted"
    run_jobs()
    assert any("is deleted" in message.subject for message in mail.outbox if message.to == [ADA])
    rows = list(Mail.objects.values("recipient", "context", "error", "erased_once_over", "state"))
    assert {row["state"] for row in rows} == {"sent"}
    assert [row for row in rows if row["erased_once_over"] and (row["context"] or row["error"])] == []
    assert {row["recipient"] for row in rows if not row["erased_once_over"]} == {owner.email}
    assert ADA not in str([row for row in rows if row["recipient"] != owner.email])
    assert build.user(ADA).pk != ada.pk  # The address is free.


def test_the_last_owner_stays(ada):
    organizations.give_first_organization(user=ada, now=timezone.now())
    lab = build.organization("lab", owner=ada)
    shared = build.organization("shared", owner=ada)
    build.member(shared, Role.OWNER)
    browser = logged_in()

    refused = browser.post("/app/account/delete", {"confirmation": ADA})

    assert refused.status_code == 422
    assert "You are the only owner of Ada, lab." in refused.text
    assert User.objects.filter(email=ADA, is_active=True).exists()
    assert Membership.objects.filter(user=ada).count() == 3
    for organization in (Organization.objects.get(slug="ada"), lab):
        organizations.delete_organization(actor=build.actor(), organization=organization, now=timezone.now())
    assert browser.post("/app/account/delete", {"confirmation": ADA}).status_code == 302


def test_deleting_asks_for_the_address_and_a_recent_proof(ada):
    browser = logged_in()

    assert browser.post("/app/account/delete", {"confirmation": "bob@example.com"}).status_code == 422
    session = browser.session
    session["account_authentication_methods"][0]["at"] -= 601
    session.save()
    late = browser.post("/app/account/delete", {"confirmation": ADA})

    assert late.headers["Location"].startswith("/accounts/reauthenticate/")
    assert User.objects.get().is_active


def test_staff_are_switched_off_instead(db):
    ada, _secret = services.create_staff(email=ADA, password=PASSWORD, now=timezone.now())

    with pytest.raises(services.StaffAccount):
        services.delete_account(actor=build.person(ada), now=timezone.now())

    assert User.objects.get().is_active


def test_two_last_owners_who_leave_at_once_leave_one(transactional_db):
    lab = build.organization("lab")
    people = [build.member(lab, Role.OWNER) for _ in "ab"]
    now = timezone.now()

    at_once(*[partial(services.delete_account, actor=build.person(person), now=now) for person in people])

    assert Membership.objects.filter(organization=lab).count() == 1
    assert User.objects.filter(is_active=True).count() == 1
