"""How much anybody may ask, and how often a secret may be guessed."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LimitsConfig(AppConfig):
    """Rates of requests and of guesses, counted in Valkey and, without it, nearby."""

    name = "apps.limits"
    label = "limits"
    verbose_name = _("Rate limits")
