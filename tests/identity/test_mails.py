"""What allauth would say in its words, our mails say: each change of an account, and links that confirm."""

from __future__ import annotations

import pytest
from allauth.account.adapter import get_adapter
from allauth.account.models import EmailAddress, EmailConfirmationHMAC
from allauth.core import context
from django.test import Client, RequestFactory

from apps.identity.notices import CHANGES
from apps.notifications.models import Mail
from tests import build

PASSWORD = "correct horse battery"


@pytest.fixture
def ada(db):
    return build.user("ada@example.com", password=PASSWORD)


def test_a_changed_password_is_told_with_where_it_came_from(ada, run_jobs, mailoutbox):
    client = Client(REMOTE_ADDR="203.0.113.9", headers={"User-Agent": "Firefox"})
    client.force_login(ada)
    new = "a new horse battery"

    form = {"oldpassword": PASSWORD, "password1": new, "password2": new}
    client.post("/accounts/password/change/", form)
    run_jobs()

    (mail,) = mailoutbox
    assert (mail.to, mail.subject) == (["ada@example.com"], "Countinghouse: Your password was changed.")
    assert "From: 203.0.113.9\nWith: Firefox\n" in mail.body
    assert "http://127.0.0.1:8000/accounts/password/change/" in mail.body
    assert "Change your password" in mail.alternatives[0][0]
    assert Mail.objects.get().user_id == ada.pk


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_that_allauth_reports_has_a_sentence(ada, mailoutbox, run_jobs, change):
    details = {
        "from_email": "old@example.com",
        "to_email": "new@example.com",
        "deleted_email": "x@example.com",
    }
    request = RequestFactory().get("/")
    with context.request_context(request):
        get_adapter().send_notification_mail(f"account/email/{change}", ada, details, email="old@example.com")
    run_jobs()

    assert mailoutbox[0].to == ["old@example.com"]
    assert "{" not in mailoutbox[0].subject


def test_allauth_has_no_notice_that_we_have_no_sentence_for():
    import re
    from pathlib import Path

    import allauth

    sources = [path for path in Path(allauth.__file__).parent.rglob("*.py") if "tests" not in path.parts]
    named = r"send_notification_mail\(\s*\"\w+/email/(\w+)\""
    found = {name for path in sources for name in re.findall(named, path.read_text(encoding="utf-8"))}

    assert len(found) > 5
    assert found <= set(CHANGES)


def test_the_link_that_confirms_is_sent_and_kept_nowhere(ada, mailoutbox):
    address = EmailAddress.objects.create(user=ada, email="new@example.com", verified=False)
    request = RequestFactory().get("/", headers={"host": "evil.example"})

    with context.request_context(request):
        EmailConfirmationHMAC(address).send(request)

    (mail,) = mailoutbox
    assert (mail.to, mail.subject) == (["new@example.com"], "Confirm your address for Countinghouse")
    assert "http://127.0.0.1:8000/accounts/confirm-email/" in mail.body
    assert not Mail.objects.exists()


def test_a_mail_server_that_is_away_breaks_no_page(ada, mailoutbox, monkeypatch):
    def away(**_how):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("apps.notifications.services.deliver_mail", away)
    with context.request_context(RequestFactory().get("/")):
        get_adapter().send_mail("account/email/email_confirmation", "ada@example.com", {"activate_url": "x"})

    assert mailoutbox == []
