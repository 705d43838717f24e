from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.core.http.navigation import Section
from apps.core.permissions import Permission
from apps.quotas import api, views

_quotas = api.QuotaList.as_view()

api_urlpatterns = [
    path("pricing/plans", api.PlanList.as_view(), name="plans"),
    path("pricing/plans/<str:plan>", api.PlanDetail.as_view(), name="plan"),
    path("orgs/<slug:slug>/quotas", _quotas, name="quotas"),
    path("user/quotas", _quotas),
    path("orgs/<slug:slug>/quota-requests", api.QuotaRequestList.as_view(), name="quota-requests"),
    path(
        "orgs/<slug:slug>/quota-requests/<uuid:request_id>",
        api.QuotaRequestDetail.as_view(),
        name="quota-request",
    ),
]

navigation = [
    Section(
        key="quotas",
        label=_("Quotas"),
        route="quotas",
        permission=Permission.QUOTAS_READ,
        position=170,
        letter="q",
    ),
]

urlpatterns = [
    path("app/<slug:slug>/quotas", views.Quotas.as_view(), name="quotas"),
    path(
        "app/<slug:slug>/quotas/requests/<uuid:request_id>/withdraw",
        views.WithdrawRequest.as_view(),
        name="quota-request-withdraw",
    ),
]
