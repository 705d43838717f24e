from django.urls import path

from apps.billing import api

_balance = api.BalanceView.as_view()
_transactions = api.TransactionList.as_view()

api_urlpatterns = [
    path("orgs/<slug:slug>/balance", _balance, name="balance"),
    path("wallet/balance", _balance),
    path("billing/credits/details", _balance),
    path("orgs/<slug:slug>/transactions", _transactions, name="transactions"),
    path(
        "orgs/<slug:slug>/transactions/aggregate", api.TransactionAggregate.as_view(), name="transaction-sums"
    ),
    path("wallet/transactions", _transactions),
    path("wallet/transactions/aggregate", api.TransactionAggregate.as_view()),
    path("billing/history", _transactions),
    path("billing/activities", _transactions),
    path("billing/credits", api.CreditList.as_view(), name="credits"),
    path("orgs/<slug:slug>/usage", api.UsageView.as_view(), name="usage"),
    path("orgs/<slug:slug>/usage/resources", api.UsageResourceList.as_view(), name="usage-resources"),
    path("pricing/billing/records", api.BillingRecordList.as_view(), name="billing-records"),
    path(
        "pricing/billing/records/<uuid:record_id>", api.BillingRecordDetail.as_view(), name="billing-record"
    ),
]
