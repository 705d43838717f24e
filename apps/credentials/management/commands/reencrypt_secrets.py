"""`manage.py reencrypt_secrets`: everything that is encrypted moves to the newest key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from apps.core.actor import system_actor
from apps.credentials import services as credentials
from apps.identity import services as identity


class Command(BaseCommand):
    """Afterwards the older FIELD_ENCRYPTION_KEYS can be taken away; again: nothing is left to do."""

    help = "Encrypt second factors and signing keys again with the newest of FIELD_ENCRYPTION_KEYS."

    def handle(self, **_options: Any) -> None:
        actor = system_actor("reencrypt_secrets")
        factors = identity.reencrypt_factors(actor=actor)
        keys = credentials.reencrypt_signing_keys(actor=actor)
        told = _("%(factors)d second factors and %(keys)d signing keys are encrypted anew.")
        self.stdout.write(told % {"factors": factors, "keys": keys})
