from django.urls import path

from apps.quotas import api

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
