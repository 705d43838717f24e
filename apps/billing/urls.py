from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.billing import views
from apps.billing.api import budgets, entitlements, holds, statements
from apps.core.http.navigation import Section
from apps.core.permissions import Permission

_balance = statements.BalanceView.as_view()
_transactions = statements.TransactionList.as_view()

api_urlpatterns = [
    path("orgs/<slug:slug>/balance", _balance, name="balance"),
    path("orgs/<slug:slug>/holds", holds.HoldList.as_view(), name="holds"),
    path("orgs/<slug:slug>/holds/<uuid:hold_id>", holds.HoldDetail.as_view(), name="hold"),
    path("orgs/<slug:slug>/budgets", budgets.BudgetList.as_view(), name="budgets"),
    path("orgs/<slug:slug>/budgets/<uuid:budget_id>", budgets.BudgetDetail.as_view(), name="budget"),
    path(
        "orgs/<slug:slug>/entitlements/check",
        entitlements.EntitlementCheck.as_view(),
        name="entitlement-check",
    ),
    path("wallet/balance", _balance),
    path("billing/credits/details", _balance),
    path("orgs/<slug:slug>/transactions", _transactions, name="transactions"),
    path(
        "orgs/<slug:slug>/transactions/aggregate",
        statements.TransactionAggregate.as_view(),
        name="transaction-sums",
    ),
    path("wallet/transactions", _transactions),
    path("wallet/transactions/aggregate", statements.TransactionAggregate.as_view()),
    path("billing/history", _transactions),
    path("billing/activities", _transactions),
    path("billing/credits", statements.CreditList.as_view(), name="credits"),
    path("orgs/<slug:slug>/usage", statements.UsageView.as_view(), name="usage"),
    path("orgs/<slug:slug>/usage/resources", statements.UsageResourceList.as_view(), name="usage-resources"),
    path("pricing/billing/records", statements.BillingRecordList.as_view(), name="billing-records"),
    path(
        "pricing/billing/records/<uuid:record_id>",
        statements.BillingRecordDetail.as_view(),
        name="billing-record",
    ),
]

navigation = [
    Section(
        key="usage",
        label=_("Usage"),
        route="usage",
        permission=Permission.USAGE_READ,
        position=110,
        letter="u",
    ),
    Section(
        key="budgets",
        label=_("Budgets"),
        route="budgets",
        permission=Permission.BILLING_READ,
        position=160,
        letter="b",
    ),
]

urlpatterns = [
    path("app/<slug:slug>/usage", views.Usage.as_view(), name="usage"),
    path("app/<slug:slug>/budgets", views.Budgets.as_view(), name="budgets"),
    path("app/<slug:slug>/budgets/new", views.NewBudget.as_view(), name="new-budget"),
    path("app/<slug:slug>/budgets/<uuid:budget_id>", views.ChangeBudget.as_view(), name="budget"),
    path("app/<slug:slug>/budgets/<uuid:budget_id>/end", views.EndBudget.as_view(), name="end-budget"),
    path("app/<slug:slug>/statement", views.Statement.as_view(), name="statement"),
]
