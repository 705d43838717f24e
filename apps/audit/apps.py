"""Who did what to what, kept for ever."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AuditConfig(AppConfig):
    """The log of every change by a person, a key or the platform itself."""

    name = "apps.audit"
    label = "audit"
    verbose_name = _("Audit log")
