"""Pages: the API keys of an organization. A secret is in the answer that made it and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from apps.core.forms import NamedForm
from apps.core.http.pages import FormMixin, OrganizationPage, Page, slice_of
from apps.core.http.sorting import RowOrder
from apps.core.http.views import AUTHENTICATED
from apps.core.permissions import Permission
from apps.credentials import selectors, services
from apps.credentials.forms import KeyChangeForm, KeyForm, RotateForm
from apps.credentials.models import ApiKey
from apps.credentials.scopes import SCOPE_PURPOSES
from apps.organizations.models import Project


class Keys(OrganizationPage):
    """The keys in force, and on demand those revoked too; a page at a time."""

    permission = Permission.API_KEYS_READ
    section = "keys"
    template_name = "credentials/keys.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        shows_revoked = request.GET.get("revoked") == "1"
        visible = selectors.keys_of(self.actor, now=self.now)
        order = RowOrder(request, selectors.KEYS_BY)
        shown = visible if shows_revoked else visible.filter(revoked_at=None)
        found = slice_of(request, shown, order=order, among=visible)
        return self.render(
            {
                "keys": [(key, selectors.state_of(key, now=self.now)) for key in found.rows],
                "slice": found,
                "sorting": order,
                "revoked": ApiKey.objects.visible_to(self.actor).exclude(revoked_at=None).count(),
                "shows_revoked": shows_revoked,
            }
        )


class NewKey(FormMixin, OrganizationPage):
    """Making a key."""

    permission = Permission.API_KEYS_CREATE
    step_up = frozenset({"GET", "POST"})
    section = "keys"
    template_name = "credentials/new_key.html"
    form_class = KeyForm

    def form_arguments(self) -> dict[str, Any]:
        """Offer the scopes that the person holds, and the projects in use."""
        return {
            "own": self.actor.permissions,
            "projects": Project.objects.visible_to(self.actor).active().order_by("slug"),
        }

    def act(self, form: Any) -> HttpResponse:
        """Make the key and show its secret, this once."""
        sent = form.cleaned_data
        try:
            key, secret = services.create_api_key(
                actor=self.actor,
                organization=self.organization,
                name=sent["name"],
                scopes=sent["scopes"],
                project=sent["project"],
                expires_at=None if sent["days"] is None else self.now + timedelta(days=sent["days"]),
                allowed_addresses=sent["allowed_ips"].split(),
                attempt_id=sent["attempt"],
                now=self.now,
            )
        except services.SecretShown as shown:
            return _shown_before(self, shown)
        return _shown_once(self, key, secret)


class _OneKey(FormMixin, OrganizationPage):
    """A page of one key."""

    section = "keys"

    @property
    def key(self) -> ApiKey:
        """The key of the path; of another organization it does not exist."""
        rows = ApiKey.objects.visible_to(self.actor).with_creator_in_force(self.now)
        return get_object_or_404(rows.select_related("project", "created_by"), pk=self.kwargs["key_id"])

    def context(self) -> dict[str, Any]:
        """Return the key with its state in words."""
        key = self.key
        return {"key": key, "state": selectors.state_of(key, now=self.now)}

    def back_url(self) -> str:
        """Return the list."""
        return self.url("keys")


class Key(_OneKey):
    """One key: what it may do, its name, and whether it is on."""

    permission = {"GET": Permission.API_KEYS_READ, "POST": Permission.API_KEYS_MANAGE}
    step_up = frozenset({"POST"})
    template_name = "credentials/key.html"
    form_class = KeyChangeForm

    def form_arguments(self) -> dict[str, Any]:
        """Show the key as it is."""
        key = self.key
        return {"initial": {"name": key.name, "is_active": key.is_active}}

    def context(self) -> dict[str, Any]:
        """Return the key, what each of its scopes means, and whether this person may change it."""
        shown = super().context()
        key: ApiKey = shown["key"]
        may_change = self.actor.can(Permission.API_KEYS_MANAGE) and set(key.scopes) <= self.actor.permissions
        return shown | {
            "may_change": may_change and key.revoked_at is None,
            "scopes": [(scope, SCOPE_PURPOSES[Permission(scope)]) for scope in key.scopes],
            "revoke_form": NamedForm(name=key.name),
        }

    def act(self, form: Any) -> HttpResponse:
        """Rename the key, or switch it."""
        changed = services.change(actor=self.actor, credential=self.key, **form.changes())
        message = _("%(name)s is changed.") % {"name": changed.name}
        return self.done(message, to=self.url("keys"), undo=self.undo(form))


class RotateKey(_OneKey):
    """Giving a key a new secret while the old one works on for a while."""

    permission = Permission.API_KEYS_MANAGE
    step_up = frozenset({"GET", "POST"})
    template_name = "credentials/rotate_key.html"
    form_class = RotateForm

    def act(self, form: Any) -> HttpResponse:
        """Rotate, and show the new secret, this once."""
        try:
            _rotated, secret = services.rotate(
                actor=self.actor,
                credential=self.key,
                overlap=timedelta(hours=form.cleaned_data["hours"]),
                attempt_id=form.cleaned_data["attempt"],
                now=self.now,
            )
        except services.SecretShown as shown:
            return _shown_before(self, shown)
        return _shown_once(self, self.key, secret)


class RevokeKey(_OneKey):
    """Ending a key for good."""

    permission = Permission.API_KEYS_MANAGE
    step_up = frozenset({"POST"})
    template_name = "credentials/revoke_key.html"
    form_class = NamedForm

    def form_arguments(self) -> dict[str, Any]:
        """Ask for the key's name."""
        return {"name": self.key.name}

    def act(self, form: Any) -> HttpResponse:
        """Revoke it."""
        key = services.revoke(actor=self.actor, credential=self.key, now=self.now)
        return self.done(_("%(name)s is revoked.") % {"name": key.name}, to=self.url("keys"))


class EndProgram(Page):
    """Logging out a program that uses the API as the person."""

    permission = {"POST": AUTHENTICATED}

    def post(self, request: HttpRequest, login_id: UUID) -> HttpResponse:
        """End one login."""
        services.end_login(actor=self.actor, login_id=login_id, now=self.now)
        return self.done(_("That program is logged out."), to=reverse("security"))


def _shown_before(page: OrganizationPage, shown: services.SecretShown) -> HttpResponse:
    """Return the way to the key whose secret this form has shown already."""
    return page.done(str(shown), to=page.url("key", key_id=shown.details["api_key"]))


def _shown_once(page: OrganizationPage, key: ApiKey, secret: str) -> HttpResponse:
    example = f"curl {settings.PUBLIC_URL}/api/v1/me \\\n  -H 'Authorization: Bearer {secret}'"
    return page.render(
        {"key": key, "secret": secret, "example": example}, template="credentials/key_secret.html"
    )
