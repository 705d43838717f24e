"""Telling people: mails about what happened, written with the change that they report."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class NotificationsConfig(AppConfig):
    """Mails in HTML and text, sent after the commit, repeated until the server takes them."""

    name = "apps.notifications"
    label = "notifications"
    verbose_name = _("Notifications")
