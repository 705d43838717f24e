"""What allauth asks us: who may sign up, what counts as step-up, how second factors are kept at rest."""

from __future__ import annotations

from typing import Any, ClassVar

import structlog
from allauth.account.adapter import DefaultAccountAdapter, get_adapter
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.providers.base import AuthProcess
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.core import encryption
from apps.core.http.address import client_address
from apps.core.http.views import STEP_UP_LASTS
from apps.identity import invites, notices, selectors, services, sessions
from apps.notifications import services as notifications

logger = structlog.get_logger(__name__)


class AccountAdapter(DefaultAccountAdapter):
    """Our rules for allauth's own pages."""

    error_messages: ClassVar = {
        **DefaultAccountAdapter.error_messages,
        "account_inactive": gettext_lazy("This account is switched off. Ask support to switch it on."),
        "email_password_mismatch": gettext_lazy(
            "The address or the password is not correct. Look at both, or reset the password."
        ),
        "enter_current_password": gettext_lazy(
            "This is not your password. Write the one that you log in with."
        ),
        "incorrect_password": gettext_lazy("This is not your password. Write the one that you log in with."),
        "duplicate_email": gettext_lazy("This is your address already. Write the one to change to."),
        "email_taken": gettext_lazy("Somebody already uses this address. Write another one."),
        "invalid_password_reset": gettext_lazy("This link no longer works. Ask for a new one."),
        "rate_limited": gettext_lazy("These were too many tries. Wait a minute, then try again."),
        "too_many_login_attempts": gettext_lazy(
            "These were too many tries. Wait some minutes, then try again."
        ),
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Return whether anybody may sign up (SIGNUP_OPEN), or who comes by an invite."""
        return services.may_sign_up(invites.token_of_target(request), now=timezone.now())

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the address that all of us believe; of a socket without one, the unspecified."""
        return client_address(request) or "::"

    def get_email_confirmation_url(self, request: HttpRequest, emailconfirmation: Any) -> str:
        """Return the link that proves an address, under PUBLIC_URL whatever host the request named."""
        path = reverse("account_confirm_email", args=[emailconfirmation.key])
        return f"{settings.PUBLIC_URL}{path}"

    def pre_login(self, request: HttpRequest, user: Any, **how: Any) -> HttpResponse | None:
        """Note whether this is a person's first login of all, which is from a new browser anyway."""
        request.is_first_login = user.last_login is None  # type: ignore[attr-defined]  # A receiver reads it.
        refusal: HttpResponse | None = super().pre_login(request, user, **how)
        return refusal

    def send_account_already_exists_mail(self, email: str) -> None:
        """Tell the owner of an address that somebody tried to sign up with it."""
        services.mail_account_exists(email)

    def send_notification_mail(
        self,
        template_prefix: str,
        user: Any,
        context: dict[str, Any] | None = None,
        email: str | None = None,
    ) -> None:
        """Queue the mail about a change in our words; allauth's own texts are never sent."""
        notices.tell_of_change(
            user=user,
            to=email or user.email,
            change=template_prefix.rpartition("/")[2],
            details=context or {},
            address=client_address(self.request),
            browser=self.request.headers.get("User-Agent", ""),
            now=timezone.now(),
        )

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send a mail with a secret link, which no row may keep; a person whose mail fails asks again."""
        template = f"identity/mail/{template_prefix.rpartition('/')[2].replace('_signup', '')}"
        facts = {name: value for name, value in context.items() if isinstance(value, str)}
        try:
            notifications.deliver_mail(template=template, to=[email], context=facts)
        except (OSError, ImproperlyConfigured) as error:
            logger.warning("mail_failed", template=template, reason=str(error))

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        """Return how the user may confirm a change; the password counts only where no factor exists."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        if user.is_authenticated and selectors.has_second_factor(user):
            return [method for method in methods if method["id"] != "reauthenticate"]
        return methods

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Return whether to ask again; a login within ten minutes by what counts for the person is proof enough.

        Who has only a provider to log in with is sent there again, because nothing here can ask them.
        """
        request = context.request
        if not super().is_reauthentication_required(app=app, **kwargs):
            return False
        proved_at = sessions.proved_at(request)
        if proved_at is not None and timezone.now() - proved_at < STEP_UP_LASTS:
            return False
        if not request.user.has_usable_password() and not selectors.has_second_factor(request.user):
            raise ImmediateHttpResponse(sessions.log_in_again(request))
        return True


class SocialAccountAdapter(DefaultSocialAccountAdapter):
    """Who comes by way of a login provider: (provider, subject) is the identity, the address never."""

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Refuse a new person whose provider does not vouch for the address: nobody may block somebody else's."""
        for address in sociallogin.email_addresses:
            address.email = address.email.lower()
        if sociallogin.is_existing or sociallogin.state.get("process") == AuthProcess.CONNECT:
            return
        sociallogin.email_addresses = [one for one in sociallogin.email_addresses if one.verified][:1]
        if not sociallogin.email_addresses:
            name = sociallogin.provider.name
            page = render(request, "identity/unproved_address.html", {"provider": name}, status=403)
            raise ImmediateHttpResponse(page)
        sociallogin.user.email = sociallogin.email_addresses[0].email

    def populate_user(self, request: HttpRequest, sociallogin: SocialLogin, data: dict[str, Any]) -> Any:
        """Return the user with the provider's name, as far as a name may be that."""
        user = super().populate_user(request, sociallogin, data)
        parts = [str(data.get(part) or "") for part in ("first_name", "last_name")]
        name = " ".join((str(data.get("name") or "") or " ".join(parts)).split())[:150]
        user.name = "" if services.wrong_name(name) else name
        user.email = user.email.lower()
        return user

    def get_connect_redirect_url(self, request: HttpRequest, socialaccount: Any) -> str:
        """Return the page that lists what is connected."""
        return reverse("security")

    def send_notification_mail(
        self, template_prefix: str, user: Any, context: dict[str, Any] | None = None, email: str | None = None
    ) -> None:
        """Queue the mail about a change as all others are."""
        get_adapter().send_notification_mail(template_prefix, user, context, email)


class MFAAdapter(DefaultMFAAdapter):
    """Encrypts TOTP secrets and recovery seeds with the newest key and reads those of every listed key."""

    error_messages: ClassVar = {
        **DefaultMFAAdapter.error_messages,
        "incorrect_code": gettext_lazy("This does not fit. Try again; of codes, only the newest counts."),
    }

    def generate_authenticator_name(self, user: Any, type: Any) -> str:  # noqa: A002  allauth's signature.
        """Return the name that a new passkey has until its owner knows a better one."""
        number = Authenticator.objects.filter(user=user, type=type).count() + 1
        return _("Passkey") if number == 1 else _("Passkey %(number)d") % {"number": number}

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """Return who asks for a passkey; it belongs to the host name that the browser sees."""
        return {**super().get_public_key_credential_rp_entity(), "name": settings.BRAND_NAME}

    def encrypt(self, text: str) -> str:
        return encryption.encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        return encryption.decrypt(encrypted_text)
