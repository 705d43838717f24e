"""Where allauth takes a code, it is spent through our service."""

from __future__ import annotations

from allauth.mfa.base.forms import AuthenticateForm as AllauthAuthenticateForm
from allauth.mfa.base.forms import ReauthenticateForm as AllauthReauthenticateForm
from django import forms
from django.utils import timezone

from apps.core.errors import DomainError
from apps.identity import services


class _SpendingMixin:
    def clean_code(self) -> str:
        """Return the code after using it up; a refusal stands beside the field."""
        code: str = self.cleaned_data["code"]  # type: ignore[attr-defined]
        try:
            self.authenticator = services.take_code(user=self.user, code=code, now=timezone.now())  # type: ignore[attr-defined]
        except DomainError as error:
            raise forms.ValidationError(str(error), code=error.code) from error
        self.authenticator.user = self.user  # type: ignore[attr-defined]
        return code


class AuthenticateForm(_SpendingMixin, AllauthAuthenticateForm):
    """The code at login."""


class ReauthenticateForm(_SpendingMixin, AllauthReauthenticateForm):
    """The code asked again inside a session."""
