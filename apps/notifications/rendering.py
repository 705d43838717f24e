"""A mail's subject, text and HTML from its templates and facts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import css_inline
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template import Context
from django.template.loader import get_template

from apps.core import brand

Fact = str | int | bool | None | list[str] | list[int]

SUBJECT_LENGTH_MAX = 200
# The separators that str.split() knows, and the controls that would hide or reverse what follows them.
_NOT_IN_ONE_LINE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
_GAP = re.compile(r"\n\s*\n\s*\n+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A mail as its reader gets it."""

    subject: str
    text: str
    html: str


def render(template: str, context: Mapping[str, Fact]) -> Rendered:
    """Return a mail from `<template>_subject.txt`, `<template>.txt` and `<template>.html`.

    Every fact becomes one line before any template sees it: whoever names an organization writes neither headers nor
    paragraphs of ours. HTML is escaped, text is not.
    """
    facts = {
        **{name: _one_line(value) for name, value in context.items()},
        "brand_name": settings.BRAND_NAME,
        "public_url": settings.PUBLIC_URL,
    }
    subject = str(_one_line(_rendered(f"{template}_subject.txt", facts)))[:SUBJECT_LENGTH_MAX]
    text = _GAP.sub("\n\n", _rendered(f"{template}.txt", facts)).strip() + "\n"
    html = _rendered(f"{template}.html", {**facts, "subject": subject}, escaped=True)
    return Rendered(subject=subject, text=text, html=_inliner(settings.BRAND_ACCENT).inline(html))


def message(
    template: str, recipient: str, context: Mapping[str, Fact], *, key: str = ""
) -> EmailMultiAlternatives:
    """Return the mail ready to send to one recipient.

    key: what makes a repetition recognizable to the mail server and the reader's program.
    """
    rendered = render(template, context)
    host = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].rstrip(">")
    # Answering machines keep silent to what carries these.
    headers = {"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"}
    if key:
        headers["Message-ID"] = f"<{key}@{host}>"
    mail = EmailMultiAlternatives(rendered.subject, rendered.text, to=[recipient], headers=headers)
    mail.attach_alternative(rendered.html, "text/html")
    return mail


def _rendered(name: str, facts: Mapping[str, Any], *, escaped: bool = False) -> str:
    template: Any = get_template(name)
    text: str = template.template.render(Context(dict(facts), autoescape=escaped))
    return text


def _one_line(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_IN_ONE_LINE.sub(" ", value).strip()
    return [_one_line(part) for part in value] if isinstance(value, list) else value


@cache
def _inliner(accent: str) -> css_inline.CSSInliner:
    # Rules for dark and narrow readers cannot be inlined, so they stay in the head.
    style = (Path(settings.ROOT) / "static/css/mail.css").read_text(encoding="utf-8")
    if accent:
        style += brand.mail_stylesheet(accent)
    return css_inline.CSSInliner(extra_css=style, keep_at_rules=True, load_remote_stylesheets=False)
