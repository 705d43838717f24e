"""What happened, for whoever wants to be told."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OutboxConfig(AppConfig):
    """Events written with the change that they report, to be delivered later."""

    name = "apps.outbox"
    label = "outbox"
    verbose_name = _("Outbox")
