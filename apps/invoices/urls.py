from django.urls import path

from apps.invoices import api

api_urlpatterns = [
    path("billing/invoices", api.InvoiceList.as_view(), name="invoices"),
    path("billing/invoices/<uuid:invoice_id>", api.InvoiceDetail.as_view(), name="invoice"),
    path("billing/invoices/<uuid:invoice_id>/lines", api.InvoiceLineList.as_view(), name="invoice-lines"),
    path("billing/invoices/<uuid:invoice_id>/explain", api.InvoiceExplain.as_view(), name="invoice-explain"),
]
