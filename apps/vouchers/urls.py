from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.core.http.navigation import Section
from apps.core.permissions import Permission
from apps.vouchers import api, views

api_urlpatterns = [
    path("billing/vouchers/redeem", api.VoucherRedeem.as_view(), name="voucher-redeem"),
    path("voucher/validate", api.VoucherValidate.as_view(), name="voucher-validate"),
]

navigation = [
    Section(
        key="credits",
        label=_("Credits"),
        route="credits",
        permission=Permission.BILLING_READ,
        position=130,
        letter="c",
    ),
]

urlpatterns = [
    path("app/<slug:slug>/credits", views.Credits.as_view(), name="credits"),
]
