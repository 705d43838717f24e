"""A forgotten password: nobody learns whether an address has an account, and only its owner gets the link."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.identity.models import PasswordReset, User
from tests import build

PASSWORD = "correct horse battery"
NEW = "another horse battery"
ADA = "ada@example.com"


@pytest.fixture
def ada(db):
    return build.user(ADA, password=PASSWORD)


def ask(email=ADA):
    return Client().post("/accounts/password/reset/", {"email": email})


def link(message) -> str:
    return re.search(r"https?://[^/\s]+(/accounts/password/reset/key/\S+)", message.body)[1]


def set_by(path, password=NEW):
    browser = Client()
    form = browser.get(path, follow=True)
    where = form.redirect_chain[-1][0] if form.redirect_chain else path
    return browser.post(where, {"password1": password, "password2": password}, follow=True)


def test_the_link_sets_a_new_password_once(ada, run_jobs):
    ask("Ada@Example.com")
    run_jobs()
    assert mail.outbox[0].to == [ADA]

    set_by(link(mail.outbox[0]))

    assert User.objects.get().check_password(NEW)
    set_by(link(mail.outbox[0]), "a third horse battery")
    assert User.objects.get().check_password(NEW)


def test_every_address_gets_the_same_answer_at_the_same_cost(ada):
    build.user("inactive@example.com")
    User.objects.filter(email="inactive@example.com").update(is_active=False)
    seen = set()
    for email in (ADA, "inactive@example.com", "nobody@example.com"):
        with CaptureQueriesContext(connection) as queries:
            answer = ask(email)
        seen.add((answer.status_code, answer.headers["Location"], len(queries)))

    assert len(seen) == 1, seen


def test_only_the_proved_address_of_an_active_account_gets_the_link(ada, run_jobs):
    EmailAddress.objects.create(user=ada, email="attacker@example.com", verified=False, primary=False)
    EmailAddress.objects.create(user=ada, email="second@example.com", verified=True, primary=False)
    build.user("unproved@example.com", verified=False)
    build.user("inactive@example.com")
    User.objects.filter(email="inactive@example.com").update(is_active=False)

    for email in (
        "attacker@example.com",
        "second@example.com",
        "unproved@example.com",
        "inactive@example.com",
        "nobody@example.com",
        f"{ADA},attacker@example.com",
    ):
        ask(email)
    run_jobs()

    assert mail.outbox == []


def test_the_link_ends_with_the_next_login(ada, run_jobs):
    ask()
    run_jobs()
    Client().post("/accounts/login/", {"login": ADA, "password": PASSWORD})

    set_by(link(mail.outbox[0]))

    assert User.objects.get().check_password(PASSWORD)


def test_a_lost_mail_is_sent_later_but_not_a_day_later(ada, run_jobs, captured_jobs):
    from apps.identity.tasks import sweep_requests

    ask()
    ask()
    captured_jobs.queued.clear()
    first, second = PasswordReset.objects.order_by("pk")
    now = timezone.now()
    PasswordReset.objects.filter(pk=first.pk).update(created_at=now - timedelta(minutes=2))
    PasswordReset.objects.filter(pk=second.pk).update(created_at=now - timedelta(days=2))

    sweep_requests()
    run_jobs()
    sweep_requests()
    run_jobs()

    assert len(mail.outbox) == 1


def test_one_address_gets_five_mails_an_hour(ada, run_jobs):
    from apps.identity import services

    for _ in range(7):
        services.request_password_reset(email=ADA, now=timezone.now())
    run_jobs()

    assert len(mail.outbox) == 5
