"""The start page, and the pages of an organization that span concepts."""

from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.core.http.navigation import Section
from apps.core.permissions import Permission
from apps.portal.views import overview, search, start

navigation = [
    Section(
        key="overview",
        label=_("Overview"),
        route="overview",
        permission=Permission.BILLING_READ,
        position=100,
        letter="o",
    ),
]

urlpatterns = [
    path("", start.start, name="start"),
    path("start/live", start.start_live, name="start-live"),
    path("start/code", start.start_code, name="start-code"),
    path("app/<slug:slug>", overview.Overview.as_view(), name="overview"),
    path("app/<slug:slug>/search", search.Search.as_view(), name="search"),
]
