"""allauth's forms in our words; wherever one takes a code, our service spends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from allauth.account import forms as account
from allauth.account.adapter import get_adapter
from allauth.core import context
from allauth.mfa.base import forms as mfa
from allauth.mfa.totp import forms as totp
from allauth.mfa.webauthn import forms as webauthn
from django import forms
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core import metrics
from apps.core.errors import DomainError, ValidationFailed
from apps.core.http.address import client_address, limiting_address
from apps.identity import invites, services
from apps.identity.models import SignUp, User
from apps.limits import services as limits

# What a session remembers of its own sign-up: the row, and where its person was going.
SIGN_UP_KEY = "sign_up"
SIGN_UP_NEXT_KEY = "sign_up_next"

LABELS = {
    "login": _("E-mail address"),
    "email": _("E-mail address"),
    "password": _("Password"),
    "oldpassword": _("Current password"),
    "password1": _("New password"),
    "password2": _("New password again"),
    "code": _("Code"),
}


@contextmanager
def _told() -> Iterator[None]:
    """Let a refusal of ours stand in the form."""
    try:
        yield
    except DomainError as error:
        raise forms.ValidationError(str(error), code=error.code) from error


@contextmanager
def _guess(policy: limits.Policy, whose: str) -> Iterator[None]:
    """Look at a password or code only while guesses are left; the API counts the same ones."""
    with _told(), limits.guess(policy, whose, limiting_address(client_address(context.request))):
        yield


@contextmanager
def _own_password(user: User) -> Iterator[None]:
    """Look at the password of a running session's user as at any guess, and count one that is wrong."""
    with _guess(limits.LOGIN, user.email):
        try:
            yield
        except forms.ValidationError:
            metrics.count_failed_authentication(metrics.PERSON, "wrong_password")
            raise


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

    def _clean_with_password(self, credentials: dict[str, str]) -> Any:
        with _guess(limits.LOGIN, credentials["email"].strip().lower()):
            return super()._clean_with_password(credentials)


class SignupForm(_PlainFields, account.SignupForm):
    """Asks for an account; the answer is the same whether the address has one or not."""

    name = forms.CharField(
        label=_("Your name"),
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    field_order = ("name", "email", "password1")

    wish: SignUp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password1"].label = _("Password")
        self.fields["password1"].help_text = _(
            "At least ten characters; three or four words make a good one."
        )

    def validate_unique_email(self, value: str) -> str:
        """Return the address without looking whether it is taken: the mail tells, to whom it concerns."""
        return value

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if self.errors:
            return cleaned
        try:
            self.wish = services.request_sign_up(
                email=cleaned["email"],
                password=cleaned["password1"],
                name=cleaned["name"],
                invite=invites.token_of_target(context.request),
                address=client_address(context.request),
                now=timezone.now(),
            )
        except limits.TooManyGuesses as refusal:
            self.add_error(None, str(refusal))
        except ValidationFailed as refusal:
            for problem in refusal.fields:
                field = "password1" if problem.path == "password" else problem.path
                self.add_error(field, problem.message)
        return cleaned

    def try_save(self, request: HttpRequest) -> tuple[User | None, HttpResponseBase | None]:
        """Return no user yet, but the page that tells to look into the mail; allauth asks by this name."""
        adapter = get_adapter()
        request.session[SIGN_UP_KEY] = str(self.wish.pk)
        target = request.POST.get(REDIRECT_FIELD_NAME, "")
        request.session[SIGN_UP_NEXT_KEY] = target if adapter.is_safe_url(target) else ""
        return None, adapter.respond_email_verification_sent(request, None)


class ConfirmSignUpForm(_PlainFields):
    """The password again, where the link is opened in another browser than the one that asked."""

    password = forms.CharField(
        label=_("Password"),
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class ResetPasswordForm(_PlainFields, account.ResetPasswordForm):
    """Asks for the link that sets a new password; nothing is looked up before its mail is written."""

    def clean_email(self) -> str:
        """Note the wish; refused, it stands beside the field."""
        email = str(self.cleaned_data["email"]).lower()
        with _told():
            services.request_password_reset(
                email=email, address=client_address(context.request), now=timezone.now()
            )
        return email

    def save(self, request: HttpRequest, **_more: Any) -> str:
        return str(self.cleaned_data["email"])


class ResetPasswordKeyForm(_PlainFields, account.ResetPasswordKeyForm):
    """Sets the new password behind that link."""


class ChangePasswordForm(_PlainFields, account.ChangePasswordForm):
    """Changes the password of the running session's user."""

    def clean_oldpassword(self) -> str:
        with _own_password(self.user):
            return str(super().clean_oldpassword())


class SetPasswordForm(_PlainFields, account.SetPasswordForm):
    """Gives a password to a user who has none."""


class AddEmailForm(_PlainFields, account.AddEmailForm):
    """The address to change to; the one of today stays until the new one is confirmed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = _("New e-mail address")


class ProfileForm(forms.Form):
    """What others in an organization see of a person."""

    name = forms.CharField(
        label=_("Your name"),
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )


class DeletionForm(forms.Form):
    """The address of the account typed again, so that nobody deletes it by a slip."""

    confirmation = forms.CharField(
        label=_("Your e-mail address"), max_length=254, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def __init__(self, *args: Any, email: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.email = email

    def clean_confirmation(self) -> str:
        typed: str = self.cleaned_data["confirmation"]
        if typed.strip().lower() != self.email:
            raise forms.ValidationError(_("This is not the address of this account."))
        return typed


class ConfirmPasswordForm(_PlainFields, account.ReauthenticateForm):
    """Asks the password again, of users without a second factor."""

    def clean_password(self) -> str:
        with _own_password(self.user):
            return str(super().clean_password())


class ActivateTOTPForm(_PlainFields, totp.ActivateTOTPForm):
    """The first code of a new authenticator; the device counts it as used."""

    def clean_code(self) -> str:
        with _guess(limits.OTP, str(self.user.pk)):
            return str(super().clean_code())


class AddPasskeyForm(_PlainFields, webauthn.AddWebAuthnForm):
    """Names a passkey that the browser makes; each can log in by itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].label = _("Name of the passkey")
        self.fields["name"].help_text = _("So that you recognize it, such as the device that keeps it.")
        self.fields["passwordless"].label = _("Log in with it without a password")
        self.fields["passwordless"].help_text = ""
        self.fields["passwordless"].initial = True


class RenamePasskeyForm(_PlainFields, webauthn.EditWebAuthnForm):
    """Another name for a passkey."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].label = _("Name of the passkey")


class _SpendingForm(_PlainFields):
    user: User  # Of allauth's form beside it.

    def clean_code(self) -> str:
        """Return the code after using it up; a refusal stands beside the field."""
        code: str = self.cleaned_data["code"]
        with _told():
            self.authenticator = services.take_code(
                user=self.user,
                code=code,
                address=client_address(context.request),
                browser=context.request.headers.get("User-Agent", ""),
                now=timezone.now(),
            )
        self.authenticator.user = self.user
        return code


class AuthenticateForm(_SpendingForm, mfa.AuthenticateForm):
    """The code at login."""


class ReauthenticateForm(_SpendingForm, mfa.ReauthenticateForm):
    """The code asked again inside a session."""
