"""allauth's forms in our words; wherever one takes a code, our service spends it."""

from __future__ import annotations

from typing import Any

from allauth.account import forms as account
from allauth.mfa.base import forms as mfa
from allauth.mfa.totp import forms as totp
from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core.errors import DomainError
from apps.identity import services

LABELS = {
    "login": _("E-mail address"),
    "email": _("E-mail address"),
    "password": _("Password"),
    "oldpassword": _("Current password"),
    "password1": _("New password"),
    "password2": _("New password again"),
    "code": _("Code"),
}


class _PlainFields(forms.Form):
    """Labels that stay, instead of placeholders that vanish; the first field has the focus."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for position, (name, field) in enumerate(self.fields.items()):
            field.label = LABELS.get(name, field.label)
            field.widget.attrs.pop("placeholder", None)
            if position == 0:
                field.widget.attrs["autofocus"] = True
            if name == "code":
                field.widget.attrs["inputmode"] = "numeric"


class LoginForm(_PlainFields, account.LoginForm):
    """Address and password."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].help_text = ""  # The link to a reset stands beside the button.


class ResetPasswordForm(_PlainFields, account.ResetPasswordForm):
    """Asks for the link that sets a new password."""


class ResetPasswordKeyForm(_PlainFields, account.ResetPasswordKeyForm):
    """Sets the new password behind that link."""


class ChangePasswordForm(_PlainFields, account.ChangePasswordForm):
    """Changes the password of the running session's user."""


class SetPasswordForm(_PlainFields, account.SetPasswordForm):
    """Gives a password to a user who has none."""


class ConfirmPasswordForm(_PlainFields, account.ReauthenticateForm):
    """Asks the password again, of users without a second factor."""


class ActivateTOTPForm(_PlainFields, totp.ActivateTOTPForm):
    """The first code of a new authenticator; the device counts it as used."""


class _SpendingForm(_PlainFields):
    def clean_code(self) -> str:
        """Return the code after using it up; a refusal stands beside the field."""
        code: str = self.cleaned_data["code"]
        user = self.user  # type: ignore[attr-defined]
        try:
            self.authenticator = services.take_code(user=user, code=code, now=timezone.now())
        except DomainError as error:
            raise forms.ValidationError(str(error), code=error.code) from error
        self.authenticator.user = user
        return code


class AuthenticateForm(_SpendingForm, mfa.AuthenticateForm):
    """The code at login."""


class ReauthenticateForm(_SpendingForm, mfa.ReauthenticateForm):
    """The code asked again inside a session."""
