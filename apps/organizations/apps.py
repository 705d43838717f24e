"""Organizations, their members, projects and billing periods."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OrganizationsConfig(AppConfig):
    """The tenants: everything that belongs to a customer names one of these organizations."""

    name = "apps.organizations"
    label = "organizations"
    verbose_name = _("Organizations")
