"""Answers kept so that a repeated request gets the first one's answer."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class IdempotencyConfig(AppConfig):
    """Idempotency keys: the same request twice has one effect and one answer."""

    name = "apps.idempotency"
    label = "idempotency"
    verbose_name = _("Idempotency")
