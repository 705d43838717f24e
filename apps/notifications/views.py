"""The development mailbox, on the developer's own machine only."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.csp import CSP
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.csp import csp_override
from django.views.decorators.http import require_safe

from apps.core.http.machine import own_machine_only
from apps.notifications import mailbox

SHOWN_MAX = 100
_FRAMING: dict[str, Any] = {**settings.SECURE_CSP, "frame-src": [CSP.SELF]}
# What is framed has styles of its own, and nothing else.
_FRAMED: dict[str, Any] = {
    "default-src": [CSP.NONE],
    "style-src": [CSP.UNSAFE_INLINE],
    "frame-ancestors": [CSP.SELF],
    "sandbox": True,
}
_LINK = re.compile(r"<a\b[^>]*\shref=\"([^\"]+)\"")


@require_safe
@never_cache
@own_machine_only
def mails(request: HttpRequest) -> HttpResponse:
    """List what was sent, newest first."""
    found = list(mailbox.newest(SHOWN_MAX))
    return render(request, "notifications/mailbox.html", {"mails": found, "kept_max": mailbox.KEPT_MAX})


@require_safe
@never_cache
@own_machine_only
@csp_override(_FRAMING)
def mail(request: HttpRequest, mail_id: UUID) -> HttpResponse:
    """Show one mail as its reader sees it, as text and as it travels, with its links to follow."""
    found = _found(mail_id)
    links = [unescape(link) for link in dict.fromkeys(_LINK.findall(found.html))]
    return render(request, "notifications/mail.html", {"mail": found, "links": links})


@require_safe
@never_cache
@own_machine_only
@xframe_options_sameorigin
@csp_override(_FRAMED)
def mail_html(request: HttpRequest, mail_id: UUID) -> HttpResponse:  # noqa: ARG001  Django's signature.
    """Return the HTML of one mail, exactly as sent."""
    return HttpResponse(_found(mail_id).html)


def _found(mail_id: UUID) -> mailbox.Received:
    found = mailbox.find(mail_id)
    if found is None:
        raise Http404
    return found
