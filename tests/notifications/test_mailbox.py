"""The development mailbox: every mail of the run, for the developer alone."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.core.mail import EmailMultiAlternatives

from apps.notifications import mailbox, services
from apps.notifications.mailbox import Mailbox, NoServer

LOOPBACK = {"host": "127.0.0.1:8000"}


@pytest.fixture
def development(settings, tmp_path):
    settings.DEBUG = True
    settings.VAR = tmp_path


def send(subject="Hello", text="See https://example.com/one", html="<p>Hi</p>"):
    mail = EmailMultiAlternatives(subject, text, from_email="billing@example.com", to=["ada@example.com"])
    if html:
        mail.attach_alternative(html, "text/html")
    Mailbox(alias="default").send_messages([mail])
    return next(mailbox.newest()).id


def test_it_lists_shows_and_frames_a_mail(client, db, development):
    empty = client.get("/dev/mail", headers=LOOPBACK).content.decode()
    html = '<p style="color:red"><a class="x" href="https://example.com/?a=1&amp;b=2">Hallo</a></p>'
    mail_id = send("Grüße", html=html)
    listed = client.get("/dev/mail", headers=LOOPBACK).content.decode()
    page = client.get(f"/dev/mail/{mail_id}", headers=LOOPBACK)
    framed = client.get(f"/dev/mail/{mail_id}/html", headers=LOOPBACK)

    assert "No mail yet" in empty
    assert f'<a href="/dev/mail/{mail_id}">Grüße</a>' in listed
    assert "ada@example.com" in listed
    assert '<a href="https://example.com/?a=1&amp;b=2">' in page.text
    assert "Content-Type: multipart/alternative" in page.text
    assert "frame-src 'self'" in page["Content-Security-Policy"]
    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert framed.text == f"{html}\n"
    assert framed["X-Frame-Options"] == "SAMEORIGIN"
    assert framed["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"
    )
    assert "no-store" in framed["Cache-Control"]


def test_a_mail_of_text_alone_has_no_frame(client, db, development):
    page = client.get(f"/dev/mail/{send(html='')}", headers=LOOPBACK).text

    assert "<iframe" not in page
    assert "See https://example.com/one" in page


def test_only_the_last_five_hundred_are_kept(development, monkeypatch):
    monkeypatch.setattr(mailbox, "KEPT_MAX", 3)
    for number in range(5):
        send(f"Mail {number}")

    assert [mail.subject for mail in mailbox.newest()] == ["Mail 4", "Mail 3", "Mail 2"]


def test_nobody_else_can_read_the_folder(development, tmp_path):
    send()

    assert (tmp_path / "mail").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("203.0.113.9", LOOPBACK),
        ("127.0.0.1", {"host": "127.0.0.1:8000", "X-Forwarded-For": "203.0.113.9"}),
        ("127.0.0.1", {"host": "rebound.example"}),
    ],
)
def test_nobody_else_sees_the_pages(client, db, development, settings, address, headers):
    settings.ALLOWED_HOSTS = ["*"]
    mail_id = send()

    for path in ("/dev/mail", f"/dev/mail/{mail_id}", f"/dev/mail/{mail_id}/html"):
        assert client.get(path, headers=headers, REMOTE_ADDR=address).status_code == 404


def test_in_production_there_are_no_such_pages(client, db, development, settings):
    mail_id = send()
    settings.DEBUG = False
    settings.ALLOWED_HOSTS = ["*"]

    assert client.get("/dev/mail", headers=LOOPBACK).status_code == 404
    assert client.get(f"/dev/mail/{mail_id}", headers=LOOPBACK).status_code == 404


def test_an_unknown_mail_is_not_found(client, db, development):
    assert client.get(f"/dev/mail/{uuid4()}", headers=LOOPBACK).status_code == 404


def test_without_a_server_mails_wait_and_say_why(db, monkeypatch):
    monkeypatch.setattr(
        type(services.mailers), "default", property(lambda _mailers: NoServer(alias="default"))
    )
    from tests.notifications.test_mails import NOW, queue

    queue("ada@example.com")
    mail = services.Mail.objects.get()

    services.send_mail(mail_id=mail.pk, now=NOW)

    mail.refresh_from_db()
    assert (mail.state, mail.error) == (
        "queued",
        "ImproperlyConfigured: EMAIL_URL is not set, so no mail can be sent",
    )
