"""Signing up: the same answer for everybody, a link that proves the address, one user and one organization."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial

import pytest
from django.contrib.auth import hashers
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.errors import NotFound
from apps.core.permissions import Role
from apps.identity import services
from apps.identity.models import SignUp, User
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization
from apps.outbox.models import OutboxEvent
from tests import build
from tests.threads import at_once

PASSWORD = "correct horse battery"
ADA = "ada@example.com"


@pytest.fixture
def hashes(monkeypatch):
    """Count the password hashes that are made."""
    made = []
    original = hashers.MD5PasswordHasher.encode
    monkeypatch.setattr(
        hashers.MD5PasswordHasher, "encode", lambda *given: (made.append(1), original(*given))[1]
    )
    return made


def ask(client=None, *, email=ADA, password=PASSWORD, name="Ada Lovelace", **more):
    fields = {"email": email, "password1": password, "name": name, **more}
    return (client or Client()).post("/accounts/signup/", fields)


def ask_by_rest(email=ADA, password=PASSWORD, path="/auth/signup", **fields):
    return build.client().post(path, {"email": email, "password": password, **fields})


def link_in(message) -> str:
    """Return the path of the link in a mail."""
    return re.search(r"https?://[^/\s]+(/accounts/confirm/\S+)", message.body)[1]


def confirm(path, client=None, **fields):
    return (client or Client()).post(path, fields)


def test_from_sign_up_to_a_first_organization(db, run_jobs):
    browser = Client()

    assert ask(browser).headers["Location"] == "/accounts/confirm-email/"
    run_jobs()
    assert not User.objects.exists()
    path = link_in(mail.outbox[0])
    assert ADA in browser.get(path).text
    assert not User.objects.exists()  # Looking changes nothing.
    done = confirm(path, browser)

    assert done.status_code == 302
    ada = User.objects.get()
    assert (ada.email, ada.name, ada.check_password(PASSWORD)) == (ADA, "Ada Lovelace", True)
    assert browser.session["_auth_user_id"] == str(ada.pk)
    membership = Membership.objects.get(user=ada)
    assert (membership.role, membership.is_default) == (Role.OWNER, True)
    assert (membership.organization.name, membership.organization.slug) == ("Ada Lovelace", "ada-lovelace")
    assert membership.organization.billing_email == ADA
    assert (
        AuditEvent.objects.filter(action="user.created", actor_label="sign-up", address="127.0.0.1").count()
        == 1
    )
    assert AuditEvent.objects.filter(action="organization.created", actor_label=ADA).count() == 1
    assert OutboxEvent.objects.filter(event_type="identity.user_created").count() == 1


def test_a_person_without_a_name_begins_with_the_address(db, run_jobs):
    assert ask_by_rest().status_code == 202
    run_jobs()
    confirm(link_in(mail.outbox[0]), password=PASSWORD)

    assert Organization.objects.get().name == "ada"


def test_another_browser_has_to_know_the_password(db, run_jobs):
    ask()
    run_jobs()
    path = link_in(mail.outbox[0])
    victim = Client()

    assert "Password" in victim.get(path).text
    assert confirm(path, victim).status_code == 200
    assert "not the password" in confirm(path, victim, password="something else").text
    assert not User.objects.exists()
    assert confirm(path, victim, password=PASSWORD).status_code == 302
    assert User.objects.count() == 1


def test_whoever_confirms_is_logged_in_as_the_new_person_and_nobody_else(db, run_jobs):
    bob = build.user("bob@example.com")
    browser = Client()
    browser.force_login(bob)
    ask_by_rest()
    run_jobs()

    confirm(link_in(mail.outbox[0]), browser, password=PASSWORD)

    assert browser.session["_auth_user_id"] == str(User.objects.get(email=ADA).pk)


@pytest.mark.parametrize("door", ["page", "rest"])
def test_known_and_unknown_addresses_get_the_same_answer_at_the_same_cost(db, hashes, door):
    build.user("known@example.com", password=PASSWORD)
    build.user("unverified@example.com", password=PASSWORD, verified=False)
    seen = set()
    for email in ("known@example.com", "unverified@example.com", "unknown@example.com"):
        hashes.clear()
        with CaptureQueriesContext(connection) as queries:
            answer = ask(email=email) if door == "page" else ask_by_rest(email)
        body = answer.headers["Location"] if door == "page" else answer.json()["message"]
        shape = tuple(re.sub(r"'[^']*'|\d+", "?", query["sql"])[:60] for query in queries)
        seen.add((answer.status_code, body, shape, len(hashes)))

    assert len(seen) == 1, seen
    assert seen.pop()[3] == 1


def test_an_address_with_an_account_is_told_by_mail_only(db, run_jobs):
    build.user(ADA, password="another horse battery")

    ask(email="Ada@Example.com")
    run_jobs()

    assert mail.outbox[0].to == [ADA]
    assert "already have an account" in mail.outbox[0].subject
    assert "/accounts/confirm/" not in mail.outbox[0].body
    assert User.objects.get().check_password("another horse battery")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"email": "nonsense"}, "email"),
        ({"email": "a" * 250 + "@example.com"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "1234567890"}, "password"),
        ({"password": "lovelace-ada", "name": "Lovelace-Ada"}, "password"),
        ({"name": "a\u202eb"}, "name"),
        ({"email": None}, "email"),
        ({"password": 7}, "password"),
    ],
)
def test_what_nobody_may_have_is_refused_and_leaves_nothing(db, fields, wrong):
    answer = build.client().post("/auth/signup", {"email": ADA, "password": PASSWORD, **fields})

    assert answer.status_code == 422
    assert {row["path"] for row in answer.json()["details"]["fields"]} == {wrong}
    assert not SignUp.objects.exists()


def test_the_page_shows_what_is_wrong_beside_its_field(db):
    answer = ask(email="nonsense", password="short", name="x" * 151)

    assert answer.status_code == 200
    assert set(answer.context["form"].errors) == {"email", "password1", "name"}
    assert not SignUp.objects.exists()


def test_the_password_may_not_be_the_name(db):
    answer = ask(password="ada lovelace!", name="Ada Lovelace!")

    assert set(answer.context["form"].errors) == {"password1"}


@pytest.mark.parametrize("how", ["used", "old", "unknown", "long"])
def test_every_link_that_is_over_looks_the_same(db, run_jobs, how):
    ask_by_rest()
    run_jobs()
    path = link_in(mail.outbox[0])
    if how == "used":
        confirm(path, password=PASSWORD)
    elif how == "old":
        SignUp.objects.update(expires_at=timezone.now())
    else:
        path = f"/accounts/confirm/{'x' * (43 if how == 'unknown' else 300)}/"

    for answer in (Client().get(path), confirm(path, password=PASSWORD)):
        assert answer.status_code == 404
        assert "This link no longer works" in answer.text


def test_of_two_wishes_the_confirmed_one_ends_the_other(db, run_jobs):
    ask_by_rest(password="the first password")
    ask_by_rest(password="the second password")
    run_jobs()
    first, second = (link_in(message) for message in mail.outbox)

    confirm(second, password="the second password")

    assert confirm(first, password="the first password").status_code == 404
    assert User.objects.get().check_password("the second password")
    assert not SignUp.objects.exclude(password="").exists()


def test_an_account_made_in_between_wins(db, run_jobs):
    ask_by_rest()
    run_jobs()
    ada = build.user(ADA)

    assert confirm(link_in(mail.outbox[0]), password=PASSWORD).status_code == 404
    assert User.objects.get() == ada


def test_confirming_twice_at_once_makes_one_person_with_one_organization(transactional_db):
    now = timezone.now()
    token = services.token_of(services.request_sign_up(email=ADA, password=PASSWORD, now=now))
    confirmation = partial(services.confirm_sign_up, token=token, password=None, address="", now=now)

    results = at_once(confirmation, confirmation)

    assert sorted(type(result).__name__ for result in results) == ["NotFound", "User"]
    assert (User.objects.count(), Organization.objects.count()) == (1, 1)


def test_two_links_of_one_address_at_once_make_one_person(transactional_db):
    now = timezone.now()
    tokens = [
        services.token_of(services.request_sign_up(email=ADA, password=PASSWORD, now=now)) for _ in "12"
    ]

    results = at_once(
        *[
            partial(services.confirm_sign_up, token=token, password=None, address="", now=now)
            for token in tokens
        ]
    )

    assert sorted(type(result).__name__ for result in results) == ["NotFound", "User"]
    assert (User.objects.count(), Organization.objects.count()) == (1, 1)


def test_two_welcomes_at_once_give_one_organization(transactional_db):
    ada = build.user(ADA)
    welcome = partial(organizations.give_first_organization, user=ada, now=timezone.now())

    results = at_once(welcome, welcome)

    assert sorted(result is None for result in results) == [False, True]
    assert Organization.objects.count() == 1


def test_members_get_no_organization_of_their_own(db):
    lab = build.organization("lab")
    ada = build.member(lab)

    assert organizations.give_first_organization(user=ada, now=timezone.now()) is None


def test_the_operator_can_close_the_door(db, settings):
    settings.SIGNUP_OPEN = False

    refusal = ask_by_rest()

    assert (refusal.status_code, refusal.json()["code"]) == (403, "signup_closed")
    assert "Signing up is closed" in Client().get("/accounts/signup/").text
    assert "Signing up is closed" in ask().text
    assert not SignUp.objects.exists()


def test_a_lost_mail_is_sent_later_and_only_once(db, run_jobs, captured_jobs):
    ask()
    captured_jobs.queued.clear()
    SignUp.objects.update(created_at=timezone.now() - timedelta(minutes=2))

    from apps.identity.tasks import sweep_requests

    sweep_requests()
    run_jobs()
    sweep_requests()
    run_jobs()

    assert len(mail.outbox) == 1


def test_one_address_gets_five_mails_an_hour(db, run_jobs):
    for _ in range(7):
        ask_by_rest()
    run_jobs()

    assert len(mail.outbox) == 5
    assert SignUp.objects.count() == 5


def test_old_wishes_are_forgotten(db, run_jobs):
    now = timezone.now()
    ask_by_rest()
    ask_by_rest("bob@example.com")
    SignUp.objects.filter(email=ADA).update(created_at=now - timedelta(days=8))

    services.forget_old_requests(now=now)

    assert SignUp.objects.get().email == "bob@example.com"


def test_the_token_is_in_the_mail_only(db, run_jobs, caplog):
    ask_by_rest()
    run_jobs()
    token = link_in(mail.outbox[0]).split("/")[3]
    Client().get(link_in(mail.outbox[0]))

    rows = str(
        [list(SignUp.objects.values()), list(AuditEvent.objects.values()), list(OutboxEvent.objects.values())]
    )
    assert token not in rows
    assert PASSWORD not in rows
    assert services.find_sign_up(token, now=timezone.now())
    with pytest.raises(NotFound):
        services.find_sign_up(token[:-1], now=timezone.now())


def test_after_signing_up_one_goes_where_one_wanted_to(db, run_jobs):
    browser = Client()
    ask(browser, next="/app/invites/abc")
    run_jobs()
    assert confirm(link_in(mail.outbox[0]), browser).headers["Location"] == "/app/invites/abc"

    mail.outbox.clear()
    other = Client()
    ask(other, email="bob@example.com", next="https://evil.example/")
    run_jobs()
    assert confirm(link_in(mail.outbox[0]), other).headers["Location"] == "/app/"
