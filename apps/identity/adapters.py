"""What allauth asks us: who may sign up, what counts as step-up, how second factors are kept at rest."""

from __future__ import annotations

import time
from typing import Any

import structlog
from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.core.http.address import client_address
from apps.identity import notices, selectors, services
from apps.notifications import services as notifications

logger = structlog.get_logger(__name__)


class AccountAdapter(DefaultAccountAdapter):
    """Our rules for allauth's own pages."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002 (allauth's signature)
        """Return whether anybody may sign up (SIGNUP_OPEN)."""
        return bool(settings.SIGNUP_OPEN)

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the address that all of us believe; of a socket without one, the unspecified."""
        return client_address(request) or "::"

    def get_email_confirmation_url(self, request: HttpRequest, emailconfirmation: Any) -> str:  # noqa: ARG002
        """Return the link that proves an address, under PUBLIC_URL whatever host the request named."""
        path = reverse("account_confirm_email", args=[emailconfirmation.key])
        return f"{settings.PUBLIC_URL}{path}"

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
        """Return whether to ask again; somebody without a factor who has just logged in need not."""
        required: bool = super().is_reauthentication_required(app=app, **kwargs)
        request = context.request
        if not required or selectors.has_second_factor(request.user):
            return required
        records = get_authentication_records(request, request.user)
        return not any(
            time.time() - record["at"] < app_settings.REAUTHENTICATION_TIMEOUT for record in records
        )


class MFAAdapter(DefaultMFAAdapter):
    """Encrypts TOTP secrets and recovery seeds with the newest key and reads those of every listed key."""

    def generate_authenticator_name(self, user: Any, type: Any) -> str:  # noqa: A002  allauth's signature.
        """Return the name that a new passkey has until its owner knows a better one."""
        number = Authenticator.objects.filter(user=user, type=type).count() + 1
        return _("Passkey") if number == 1 else _("Passkey %(number)d") % {"number": number}

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """Return who asks for a passkey; it belongs to the host name that the browser sees."""
        return {**super().get_public_key_credential_rp_entity(), "name": settings.BRAND_NAME}

    def encrypt(self, text: str) -> str:
        return _fernet().encrypt(text.encode()).decode("ascii")

    def decrypt(self, encrypted_text: str) -> str:
        return _fernet().decrypt(encrypted_text.encode("ascii")).decode()


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.FIELD_ENCRYPTION_KEYS])
