from django.urls import path

from apps.vouchers import api

api_urlpatterns = [
    path("billing/vouchers/redeem", api.VoucherRedeem.as_view(), name="voucher-redeem"),
    path("voucher/validate", api.VoucherValidate.as_view(), name="voucher-validate"),
]
