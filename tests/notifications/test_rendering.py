"""What a mail may contain: our words and other people's names, never other people's markup or headers."""

from __future__ import annotations

import re

import pytest
from django.conf import settings

from apps.notifications.rendering import message, render

INVITE = "organizations/mail/invite"
LINK = "https://portal.example.com/app/invites/abc"


def invite(organization, role="Developer"):
    return {"organization": organization, "role": role, "link": LINK}


@pytest.mark.parametrize(
    "name",
    [
        '<a href="https://evil.example">Acme</a>',
        "<script>alert(1)</script>",
        "Acme</strong></td></tr></table><h1>Pay here",
        '"><img src=x onerror=alert(1)>',
        "{{ link }}{% load i18n %}",
    ],
)
def test_markup_in_a_name_stays_a_name(name):
    mail = render(INVITE, invite(name))
    innocent = render(INVITE, invite("Acme"))

    def tags(html):
        return re.findall(r"<(/?\w+)", html)

    assert tags(mail.html) == tags(innocent.html)
    assert set(re.findall(r'<a[^>]* href="([^"]*)"', mail.html)) == {LINK, settings.PUBLIC_URL}
    assert name in mail.text, "text shows it as it is"
    assert name in mail.subject


@pytest.mark.parametrize("breaking", ["\r\n", "\n", "\r", "\u2028", "\x0b", "\x85", "\x00"])
def test_a_name_is_one_line_and_no_header(breaking):
    name = f"Acme{breaking}Bcc: victim@example.com{breaking}{breaking}Your password has expired"

    mail = message(INVITE, "ada@example.com", invite(name))

    sent = mail.message()
    assert sent["Bcc"] is None
    assert mail.subject == "Join Acme Bcc: victim@example.com Your password has expired on Countinghouse"
    assert "join Acme Bcc: victim@example.com Your password has expired on" in mail.body
    assert "\nYour password" not in mail.body


def test_a_name_cannot_turn_the_text_around_it():
    mail = render(INVITE, invite("Acme\u202e moc.live"))

    assert "\u202e" not in mail.text + mail.subject + mail.html


def test_names_outside_ascii_arrive(mailoutbox):
    mail = message(INVITE, "ada@example.com", invite("Zürich 東京 & Söhne"))
    mail.send()

    assert mailoutbox[0].subject == "Join Zürich 東京 & Söhne on Countinghouse"
    assert "Zürich 東京 &amp; Söhne" in mailoutbox[0].alternatives[0][0]


def test_the_operators_name_is_everywhere(settings):
    settings.BRAND_NAME = "Ferro <Cloud>"

    mail = render(INVITE, invite("Acme"))

    assert "Countinghouse" not in mail.subject + mail.text + mail.html
    assert "Ferro <Cloud>" in mail.text
    assert "Ferro &lt;Cloud&gt;" in mail.html


def test_a_long_subject_is_cut():
    assert len(render(INVITE, invite("A" * 1000)).subject) == 200
