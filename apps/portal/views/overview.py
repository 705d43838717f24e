"""The first page of an organization: what there is to spend, what is spent, and what runs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from apps.core.http.pages import OrganizationPage
from apps.core.permissions import Permission
from apps.portal import overview


class Overview(OrganizationPage):
    """How an organization stands at this moment."""

    permission = Permission.BILLING_READ
    section = "overview"
    template_name = "portal/overview.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:  # noqa: ARG002  Django's signature.
        return self.render({"standing": overview.standing(self.organization, now=self.now)})
