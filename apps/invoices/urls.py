from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.core.http.navigation import Section
from apps.core.permissions import Permission
from apps.invoices import api, views
from apps.invoices.files import FORMATS

api_urlpatterns = [
    path("billing/invoices", api.InvoiceList.as_view(), name="invoices"),
    path("billing/invoices/<uuid:invoice_id>", api.InvoiceDetail.as_view(), name="invoice"),
    path("billing/invoices/<uuid:invoice_id>/lines", api.InvoiceLineList.as_view(), name="invoice-lines"),
    *(
        path(
            f"billing/{kind}s/<uuid:invoice_id>/{file_format}",
            api.DocumentFile.as_view(file_format=file_format),
            name=f"{kind}-{file_format}",
        )
        for kind in ("invoice", "credit-note")
        for file_format in FORMATS
    ),
    path("billing/credit-notes", api.CreditNoteList.as_view(), name="credit-notes"),
    path("billing/credit-notes/<uuid:invoice_id>", api.CreditNoteDetail.as_view(), name="credit-note"),
    path(
        "billing/credit-notes/<uuid:invoice_id>/lines",
        api.InvoiceLineList.as_view(),
        name="credit-note-lines",
    ),
    path("billing/focus", api.FocusExport.as_view(), name="billing-focus"),
    path("billing/invoices/<uuid:invoice_id>/explain", api.InvoiceExplain.as_view(), name="invoice-explain"),
    path(
        "billing/credit-notes/<uuid:invoice_id>/explain",
        api.CreditNoteExplain.as_view(),
        name="credit-note-explain",
    ),
]

navigation = [
    Section(
        key="invoices",
        label=_("Invoices"),
        route="invoices",
        permission=Permission.BILLING_READ,
        position=120,
        letter="i",
    ),
]

urlpatterns = [
    path("app/<slug:slug>/invoices", views.Invoices.as_view(), name="invoices"),
    path("app/<slug:slug>/invoices/focus", views.FocusFile.as_view(), name="invoices-focus"),
    path("app/<slug:slug>/invoices/<uuid:invoice_id>", views.InvoicePage.as_view(), name="invoice"),
    path(
        "app/<slug:slug>/invoices/<uuid:invoice_id>/send", views.SendDocument.as_view(), name="send-invoice"
    ),
    path(
        "app/<slug:slug>/invoices/<uuid:invoice_id>/file/<str:file_format>",
        views.InvoiceFile.as_view(),
        name="invoice-file",
    ),
    path(
        "app/<slug:slug>/invoices/<uuid:invoice_id>/lines/<uuid:line_id>",
        views.LinePage.as_view(),
        name="invoice-line",
    ),
]
