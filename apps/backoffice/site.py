"""The staff admin site: Django's admin, open only to sessions that passed a second factor."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django_otp.admin import OTPAdminSite

ORDER = (
    "organizations",
    "invoices",
    "payments",
    "billing",
    "vouchers",
    "quotas",
    "metering",
    "pricing",
    "credentials",
    "identity",
    "ledger",
    "notifications",
    "audit",
    "outbox",
)
PEOPLE = "identity"
LIBRARIES_ABOUT_PEOPLE = ("account", "mfa", "auth")


class BackofficeSite(OTPAdminSite):
    """Admits staff whose session is verified; everybody else is sent where they can become that."""

    site_title = _("Staff")
    site_header = _("Staff")
    index_title = _("Back office")
    empty_value_display = "–"

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)

    @method_decorator(never_cache)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Redirect to the one missing step; this page itself takes neither password nor code."""
        target = self._target(request)
        if self.has_permission(request):
            return HttpResponseRedirect(target)
        user = request.user
        if not user.is_authenticated:
            step = "account_login"
        elif not (user.is_active and user.is_staff):
            raise PermissionDenied
        elif _selector("apps.identity.selectors.has_second_factor")(user):
            step = "mfa_reauthenticate"
        else:
            step = "mfa_activate_totp"
        return HttpResponseRedirect(f"{reverse(step)}?{urlencode({REDIRECT_FIELD_NAME: target})}")

    def logout(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """Hand over to the one place that ends sessions."""
        return HttpResponseRedirect(reverse("account_logout"))

    def password_change(self, request: HttpRequest, *_args: Any, **_more: Any) -> HttpResponse:
        """Hand over to the one place that changes passwords."""
        return HttpResponseRedirect(reverse("account_change_password"))

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the numbers that ask for somebody, then every list."""
        found = _selector("apps.backoffice.selectors.facts_for")(request.user, now=timezone.now())
        facts = [{"fact": fact, "url": self._list_url(fact.model, fact.query)} for fact in found]
        page: HttpResponse = super().index(request, {**(extra_context or {}), "facts": facts})
        return page

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[dict[str, Any]]:
        """Return the lists by concept, in the order of the main job; libraries' lists stand under ours."""
        by_label = {app["app_label"]: app for app in super().get_app_list(request, app_label)}
        people = by_label.get(PEOPLE)
        for label in LIBRARIES_ABOUT_PEOPLE:
            if people and label in by_label:
                people["models"] += by_label.pop(label)["models"]
        return sorted(by_label.values(), key=lambda app: (_rank(app["app_label"]), app["name"]))

    def _list_url(self, model: str, query: str) -> str:
        try:
            return f"{reverse(f'{self.name}:{model}_changelist')}?{query}" if model else ""
        except NoReverseMatch:  # The list is not in the admin.
            return ""

    def _target(self, request: HttpRequest) -> str:
        asked = request.GET.get(REDIRECT_FIELD_NAME, "")
        safe = url_has_allowed_host_and_scheme(asked, allowed_hosts=None, require_https=request.is_secure())
        own_login = reverse(f"{self.name}:login")
        return asked if safe and not asked.startswith(own_login) else reverse(f"{self.name}:index")


def _rank(label: str) -> int:
    return ORDER.index(label) if label in ORDER else len(ORDER)


def _selector(name: str) -> Any:
    # The admin site is made while apps still load, before any model may be imported.
    return import_string(name)
