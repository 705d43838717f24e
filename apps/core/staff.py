"""What the staff admin's classes share."""

from __future__ import annotations

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ActionForm
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor, ActorKind
from apps.core.http.address import client_address


def staff_actor(request: HttpRequest) -> Actor:
    """Return the staff user of a request as the actor of a service."""
    user = request.user
    return Actor(kind=ActorKind.STAFF, id=user.pk, label=user.get_username(), address=client_address(request))


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows are shown, never edited; a change is an action that calls a service with a reason."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 (Django passes it by name)
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False


class ReasonActionForm(ActionForm):
    """The choice of an action with its reason beside it; the action says whether it needs one."""

    reason = forms.CharField(label=_("Reason"), required=False, max_length=500)


def link_to(model: str, pk: object, text: str) -> SafeString | str:
    """Return a link to a row's admin page; `model` is `app_model`, such as `invoices_invoice`."""
    if pk is None:
        return "–"
    return format_html('<a href="{}">{}</a>', reverse(f"admin:{model}_change", args=[pk]), text)


def list_link(model: str, text: str, **filters: object) -> SafeString:
    """Return a link to an admin list narrowed by exact filters."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return format_html('<a href="{}?{}">{}</a>', reverse(f"admin:{model}_changelist"), query, text)
