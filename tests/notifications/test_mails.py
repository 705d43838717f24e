"""A mail goes out with the change that it reports, once, until the server takes it."""

from __future__ import annotations

import smtplib
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.core.mail import mailers
from django.db import transaction
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.ids import uuid7
from apps.notifications import services as notifications
from apps.notifications.models import Mail, MailState
from tests import build
from tests.threads import at_once

NOW = datetime(2026, 5, 15, 12, tzinfo=UTC)
REUSED = "credentials/mail/token_reused"
FACTS = {"began_at": "2026-05-15T11:00:00+00:00", "address": "192.0.2.7", "link": "https://example.com/x"}


def queue(*to, cause="tests:1", now=NOW, **facts):
    notifications.queue_mail(template=REUSED, to=to, context={**FACTS, **facts}, cause=cause, now=now)


class Server:
    """A mail server that refuses as told."""

    def __init__(self, *refusals):
        self.refusals = list(refusals)
        self.taken = []

    def send_messages(self, messages):
        if self.refusals:
            raise self.refusals.pop(0)
        self.taken += messages


@pytest.fixture
def server(monkeypatch):
    standing_in = Server()
    monkeypatch.setattr(type(mailers), "default", property(lambda _mailers: standing_in))
    return standing_in


def test_each_recipient_gets_one_of_their_own_after_the_commit(db, mailoutbox, captured_jobs):
    queue("ada@example.com", "Grace@example.com", "ada@example.com")

    assert mailoutbox == []
    assert captured_jobs.run() == ["notifications.send_mail", "notifications.send_mail"]
    assert [mail.to for mail in mailoutbox] == [["ada@example.com"], ["grace@example.com"]]
    assert set(Mail.objects.values_list("state", "attempts", "error")) == {(MailState.SENT, 1, "")}


def test_it_has_a_text_an_html_part_and_says_that_a_machine_wrote_it(db, mailoutbox, run_jobs):
    queue("ada@example.com")
    run_jobs()

    (mail,) = mailoutbox
    html, kind = mail.alternatives[0]
    sent = mail.message()
    assert mail.subject == "A login was ended for your safety"
    assert "The login began on 15 May 2026, 11:00 UTC from 192.0.2.7." in mail.body
    assert mail.body.endswith("\n-- \nCountinghouse\nhttp://127.0.0.1:8000\n")
    assert kind == "text/html"
    assert "15 May 2026, 11:00 UTC" in html
    assert 'href="https://example.com/x" style="' in html, "styles are inlined"
    assert "prefers-color-scheme: dark" in html
    assert "<link" not in html
    assert sent["Auto-Submitted"] == "auto-generated"
    assert str(Mail.objects.get().pk) in sent["Message-ID"]


def test_the_same_cause_mails_nobody_twice(db, mailoutbox, run_jobs):
    queue("ada@example.com")
    queue("ada@example.com", "grace@example.com")
    run_jobs()
    queue("ada@example.com")
    run_jobs()

    assert [mail.to[0] for mail in mailoutbox] == ["ada@example.com", "grace@example.com"]


def test_nothing_is_sent_or_kept_when_the_change_is_rolled_back(transactional_db, captured_jobs):
    def change():
        with transaction.atomic():
            queue("ada@example.com")
            raise LookupError

    with pytest.raises(LookupError):
        change()

    assert not Mail.objects.exists()
    assert captured_jobs.queued == []


def test_a_failure_is_noted_and_tried_again_at_growing_distances(db, server):
    server.refusals = [ConnectionRefusedError(111, "Connection refused")] * 3
    queue("ada@example.com")
    (mail,) = Mail.objects.all()
    waits = []
    now = NOW
    for _attempt in range(4):
        notifications.send_mail(mail_id=mail.pk, now=now)
        mail.refresh_from_db()
        waits.append(mail.next_attempt_at - now)
        notifications.send_mail(mail_id=mail.pk, now=mail.next_attempt_at - timedelta(microseconds=1))
        now = mail.next_attempt_at

    assert waits[:3] == [timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=8)]
    assert len(server.taken) == 1
    assert (mail.state, mail.attempts, mail.error) == (MailState.SENT, 4, "")


def test_it_is_given_up_after_the_last_attempt_and_says_why(db, server):
    server.refusals = [ConnectionRefusedError(111, "Connection refused")] * 99
    queue("ada@example.com")
    mail = Mail.objects.get()
    while mail.state == MailState.QUEUED:
        notifications.send_mail(mail_id=mail.pk, now=mail.next_attempt_at)
        mail.refresh_from_db()

    assert (mail.state, mail.attempts) == (MailState.FAILED, notifications.ATTEMPTS_MAX)
    assert mail.error == "ConnectionRefusedError: [Errno 111] Connection refused"
    assert timedelta(hours=11) < mail.next_attempt_at - NOW < timedelta(days=2)


@pytest.mark.parametrize(
    ("refusal", "state"),
    [
        (smtplib.SMTPRecipientsRefused({"ada@example.com": (550, b"no such user")}), MailState.FAILED),
        (smtplib.SMTPRecipientsRefused({"ada@example.com": (451, b"greylisted")}), MailState.QUEUED),
        (smtplib.SMTPDataError(554, b"refused"), MailState.FAILED),
        (smtplib.SMTPDataError(452, b"full"), MailState.QUEUED),
        (smtplib.SMTPAuthenticationError(535, b"wrong password"), MailState.QUEUED),
    ],
)
def test_only_what_the_server_refuses_for_good_is_given_up_at_once(db, server, refusal, state):
    server.refusals = [refusal]
    queue("ada@example.com")

    notifications.send_mail(mail_id=Mail.objects.get().pk, now=NOW)

    assert Mail.objects.get().state == state


def test_a_template_that_breaks_is_a_failure_like_any_other(db, mailoutbox):
    queue("ada@example.com", began_at="not a moment")

    notifications.send_mail(mail_id=Mail.objects.get().pk, now=NOW)

    assert mailoutbox == []
    assert Mail.objects.get().error == "ValueError: Invalid isoformat string: 'not a moment'"


def test_the_sweep_finds_what_a_crash_left(db, server, captured_jobs):
    queue("ada@example.com", now=timezone.now())
    captured_jobs.queued.clear()

    with time_machine.travel(timezone.now() + timedelta(seconds=5), tick=False):
        assert notifications.sweep_mails(now=timezone.now()) == 1
        captured_jobs.run()
        assert notifications.sweep_mails(now=timezone.now()) == 0

    assert len(server.taken) == 1


def test_a_worker_that_died_while_sending_loses_the_mail_to_the_next(db, server):
    server.refusals = [SystemExit()]
    queue("ada@example.com")
    mail = Mail.objects.get()
    with pytest.raises(SystemExit):
        notifications.send_mail(mail_id=mail.pk, now=NOW)

    assert not Mail.objects.due(NOW + timedelta(minutes=4)).exists()
    assert Mail.objects.due(NOW + timedelta(minutes=5)).exists()


def test_two_workers_with_one_mail_send_it_once(transactional_db, server):
    queue("ada@example.com")
    mail_id = Mail.objects.get().pk

    at_once(*[lambda: notifications.send_mail(mail_id=mail_id, now=NOW)] * 4)

    assert len(server.taken) == 1
    assert Mail.objects.get().attempts == 1


def test_staff_send_it_again_with_a_trace(db, mailoutbox, run_jobs):
    queue("ada@example.com")
    run_jobs()

    notifications.send_again(actor=build.actor(), mail_id=Mail.objects.get().pk, now=timezone.now())
    run_jobs()

    assert len(mailoutbox) == 2
    event = AuditEvent.objects.get(action="mail.sent_again")
    assert event.diff == {"state": ["sent", "queued"], "recipient": "ada@example.com"}


def test_who_is_gone_is_erased_from_mails_once_they_are_over(db, server, run_jobs):
    ada = uuid7()
    queue("ada@example.com", "grace@example.com", cause="tests:sent")
    for template, cause in ((REUSED, "tests:former"), ("payments/mail/paid", "tests:books")):
        notifications.queue_mail(
            template=template, to=["old@example.com"], context=FACTS, user_id=ada, cause=cause, now=NOW
        )
    run_jobs()
    queue("ada@example.com", cause="tests:waits")
    server.refusals = [smtplib.SMTPRecipientsRefused({"ada@example.com": (550, b"ada@example.com?")})]

    notifications.forget_recipient(address="Ada@example.com", user_id=ada)

    def kept():
        rows = Mail.objects.filter(recipient__endswith="@example.com").order_by("cause", "recipient")
        return list(rows.values_list("cause", "recipient"))

    stays = [("tests:books", "old@example.com"), ("tests:sent", "grace@example.com")]
    assert kept() == [*stays, ("tests:waits", "ada@example.com")]
    run_jobs()
    assert kept() == stays
    erased = Mail.objects.filter(recipient__endswith="@erased.invalid")
    assert {(mail.state, str(mail.context), mail.error) for mail in erased} == {
        ("sent", "{}", ""),
        ("failed", "{}", ""),
    }
    with pytest.raises(notifications.MailErased):
        notifications.send_again(actor=build.actor(), mail_id=erased[0].pk, now=NOW)


def test_mails_delivered_at_once_leave_no_row(db, mailoutbox):
    notifications.deliver_mail(template=REUSED, to=["ada@example.com", "grace@example.com"], context=FACTS)

    assert [mail.to for mail in mailoutbox] == [["ada@example.com"], ["grace@example.com"]]
    assert not Mail.objects.exists()
