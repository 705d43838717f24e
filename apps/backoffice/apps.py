from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.utils.translation import gettext_lazy as _


class BackofficeAdminConfig(AdminConfig):
    """Django's admin, served by our site."""

    default = False
    default_site = "apps.backoffice.site.BackofficeSite"


class BackofficeConfig(AppConfig):
    default = True
    name = "apps.backoffice"
    label = "backoffice"
    verbose_name = _("Back office")
