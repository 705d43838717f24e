"""The staff admin site: Django's admin, open only to sessions that passed a second factor."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django_otp.admin import OTPAdminSite

from apps.identity import selectors as identity


class BackofficeSite(OTPAdminSite):
    """Admits staff whose session is verified; everybody else is sent where they can become that."""

    site_title = _("Staff")
    site_header = _("Staff")
    index_title = _("Back office")
    enable_nav_sidebar = True

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)

    @never_cache
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:  # noqa: ARG002
        """Redirect to the one missing step; this page itself takes neither password nor code."""
        target = self._target(request)
        if self.has_permission(request):
            return HttpResponseRedirect(target)
        if not request.user.is_authenticated:
            step = "account_login"
        elif not (request.user.is_active and request.user.is_staff):
            raise PermissionDenied
        elif identity.has_second_factor(request.user):
            step = "mfa_reauthenticate"
        else:
            step = "mfa_activate_totp"
        return HttpResponseRedirect(f"{reverse(step)}?{urlencode({REDIRECT_FIELD_NAME: target})}")

    def _target(self, request: HttpRequest) -> str:
        asked = request.GET.get(REDIRECT_FIELD_NAME, "")
        index = reverse(f"{self.name}:index")
        safe = url_has_allowed_host_and_scheme(asked, allowed_hosts=None, require_https=request.is_secure())
        return asked if safe and not asked.startswith(reverse(f"{self.name}:login")) else index
