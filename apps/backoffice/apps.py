from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.utils.translation import gettext_lazy as _


# The module is imported whole: a name AdminConfig here would be a second default configuration.
class BackofficeAdminConfig(admin_apps.AdminConfig):
    """Django's admin, served by our site."""

    default = False
    default_site = "apps.backoffice.site.BackofficeSite"


class BackofficeConfig(AppConfig):
    default = True
    name = "apps.backoffice"
    label = "backoffice"
    verbose_name = _("Back office")
