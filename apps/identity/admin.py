"""People in the staff admin: who they are and what they may do; secrets of second factors stay hidden."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.db.models import Exists, ManyToManyField, OuterRef, QuerySet
from django.forms import CheckboxSelectMultiple, ModelForm
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core.staff import ReadOnlyAdmin, staff_actor
from apps.identity import services
from apps.identity.models import User
from apps.identity.selectors import VERIFYING_TYPES

# allauth's own pages show seeds, and would let a factor be edited as JSON.
for theirs in (Authenticator, EmailAddress, SocialAccount, SocialApp, SocialToken, UserSession):
    if admin.site.is_registered(theirs):
        admin.site.unregister(theirs)


@admin.register(User)
class UserAdmin(admin.ModelAdmin):
    """Users are made without a password; they set one through the reset link of the login page."""

    list_display = ("email", "name", "second_factor", "is_staff", "is_active", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active", "groups")
    search_fields = ("email", "name", "id")
    ordering = ("email",)
    # Django's two-column chooser has labels that screen readers may not have.
    formfield_overrides = {ManyToManyField: {"widget": CheckboxSelectMultiple}}
    add_fieldsets = ((None, {"fields": ("email", "name")}),)
    fieldsets = (
        (None, {"fields": ("email", "name", "is_active")}),
        (_("Staff"), {"fields": ("is_staff", "is_superuser", "groups")}),
        (_("Record"), {"fields": ("id", "date_joined", "last_login")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        factors = Authenticator.objects.filter(user=OuterRef("pk"), type__in=VERIFYING_TYPES)
        users: QuerySet[User] = super().get_queryset(request)
        return users.annotate(has_factor=Exists(factors))

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        return super().get_fieldsets(request, obj) if obj else self.add_fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        fixed = ("id", "email", "date_joined", "last_login")
        # Whoever could make staff could make themselves anything.
        return fixed if request.user.is_superuser else (*fixed, "is_staff", "is_superuser", "groups")

    @admin.display(description=_("Second factor"), boolean=True, ordering="has_factor")
    def second_factor(self, user: Any) -> bool:
        return bool(user.has_factor)

    def save_model(self, request: HttpRequest, obj: User, form: ModelForm[User], change: bool) -> None:
        actor = staff_actor(request)
        if change:
            changes = {name: form.cleaned_data[name] for name in form.changed_data}
            services.change_user(actor=actor, user_id=obj.pk, changes=changes)
        else:
            made = services.create_user(email=obj.email, name=obj.name, actor=actor, now=timezone.now())
            obj.pk = made.pk

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Leave the groups alone: the service has set them."""

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        # A person stands in audit rows and invoices; switching the account off is what remains.
        return False


@admin.register(Authenticator)
class AuthenticatorAdmin(ReadOnlyAdmin):
    list_display = ("user", "type", "created_at", "last_used_at")
    list_filter = ("type",)
    list_select_related = ("user",)
    search_fields = ("user__email",)
    ordering = ("-created_at", "-id")
    fields = ("user", "type", "created_at", "last_used_at")


@admin.register(EmailAddress)
class EmailAddressAdmin(ReadOnlyAdmin):
    list_display = ("email", "user", "primary", "verified")
    list_filter = ("primary", "verified")
    list_select_related = ("user",)
    search_fields = ("email", "user__email")
    ordering = ("email", "id")
