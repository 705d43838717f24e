"""Credentials in the staff admin: lists, revocation, and new integrations whose secret is shown once."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.core.staff import (
    EVERYWHERE,
    ReadOnlyAdmin,
    ReasonActionForm,
    act_on_each,
    link_to,
    list_link,
    staff_actor,
    with_reason,
)
from apps.credentials import services
from apps.credentials.forms import IntegrationForm
from apps.credentials.models import ApiKey, Integration, SigningKey, TokenFamily


class CredentialAdmin(ReadOnlyAdmin):
    """What both kinds have in common."""

    action_form = ReasonActionForm
    actions = ("revoke_selected",)
    exclude = ("digest", "previous_digest", "attempts")
    ordering = ("-created_at", "-id")
    readonly_fields = ("masked", "related")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Whoever may change credentials may end them."""
        return admin.ModelAdmin.has_change_permission(self, request)

    @admin.action(description=_("Revoke for good"), permissions=["revoke"], location=EVERYWHERE)
    @with_reason
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Any], reason: str) -> None:
        def revoke(credential: ApiKey | Integration) -> str:
            services.revoke(
                actor=staff_actor(request), credential=credential, reason=reason, now=timezone.now()
            )
            return _("%(name)s is revoked.") % {"name": credential}

        act_on_each(self, request, queryset, revoke)

    @admin.display(description=_("Related"))
    def related(self, credential: ApiKey | Integration) -> SafeString:
        return list_link("audit_auditevent", str(_("Audit")), q=credential.id)

    @admin.display(description=_("Works"), boolean=True)
    def in_force(self, credential: ApiKey | Integration) -> bool:
        return credential.works(timezone.now())


@admin.register(ApiKey)
class ApiKeyAdmin(CredentialAdmin):
    list_display = (
        "name",
        "masked",
        "of_organization",
        "in_force",
        "expires_at",
        "last_used_at",
        "created_by",
    )
    list_filter = ("is_active", ("revoked_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("organization", "created_by")
    search_fields = ("=public_id", "name", "organization__slug", "created_by__email", "=id")
    search_help_text = _("Public id (the eight characters after the marker), name, organization or person")

    @admin.display(description=_("Organization"), ordering="organization__slug")
    def of_organization(self, key: ApiKey) -> SafeString | str:
        return link_to("organizations_organization", key.organization_id, key.organization.slug)


@admin.register(Integration)
class IntegrationAdmin(CredentialAdmin):
    list_display = ("name", "masked", "scopes", "in_force", "expires_at", "last_used_at", "created_by_label")
    list_filter = ("is_active", ("revoked_at", admin.EmptyFieldListFilter), "created_at")
    search_fields = ("=public_id", "name", "=id")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return admin.ModelAdmin.has_add_permission(self, request)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if obj else IntegrationForm

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return super().get_fields(request, obj) if obj else (*IntegrationForm.Meta.fields, "attempt")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return super().get_readonly_fields(request, obj) if obj else ()

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Make one, or lead to the one that this form has made before."""
        try:
            return super().add_view(request, form_url, extra_context)
        except services.SecretShown as shown:
            self.message_user(request, str(shown), messages.WARNING)
            made = shown.details["integration"]
            return HttpResponseRedirect(reverse("admin:credentials_integration_change", args=[made]))

    def save_model(self, request: HttpRequest, obj: Integration, form: Any, change: bool) -> None:
        sent = dict(form.cleaned_data)
        made, secret = services.create_integration(
            actor=staff_actor(request), attempt_id=sent.pop("attempt"), now=timezone.now(), **sent
        )
        obj.__dict__ |= made.__dict__
        # Not a message: those are kept in a cookie.
        request.secret_shown_once = secret  # type: ignore[attr-defined]  # For `response_add`.

    def response_add(
        self,
        request: HttpRequest,
        obj: Integration,
        post_url_continue: str | None = None,
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": _("The secret of %(name)s") % {"name": obj.name},
            "opts": self.opts,
            "integration": obj,
            "secret": request.secret_shown_once,  # type: ignore[attr-defined]  # By `save_model`.
        }
        return TemplateResponse(request, "credentials/secret_once.html", context)


@admin.register(SigningKey)
class SigningKeyAdmin(ReadOnlyAdmin):
    list_display = ("kid", "state", "created_at", "activated_at", "retired_at")
    list_filter = ("state",)
    search_fields = ("=kid",)
    exclude = ("private_key",)
    ordering = ("-created_at", "-id")


@admin.register(TokenFamily)
class TokenFamilyAdmin(ReadOnlyAdmin):
    list_display = ("user", "address", "user_agent", "created_at", "last_used_at", "expires_at", "revoked_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("user",)
    search_fields = ("user__email", "=id", "=address")
    exclude = ("password_stamp",)
    ordering = ("-created_at", "-id")
