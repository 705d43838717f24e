"""API keys of organizations and integrations of the operator."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CredentialsConfig(AppConfig):
    """What machines prove themselves with."""

    name = "apps.credentials"
    label = "credentials"
    verbose_name = _("Credentials")
