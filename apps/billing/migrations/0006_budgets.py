"""Budgets and what was told about them; no row of one organization points at another's."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

import apps.core.ids
from apps.core.db import append_only, composite_foreign_key

TENANT = ["organization_id", "id"]


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0005_spend_guard"),
        ("credentials", "0002_tokens"),
        ("organizations", "0004_billing_profiles"),
    ]

    operations = [
        migrations.CreateModel(
            name="Budget",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                (
                    "scope",
                    models.CharField(
                        choices=[
                            ("organization", "Organization"),
                            ("project", "Project"),
                            ("api_key", "API key"),
                        ],
                        max_length=16,
                    ),
                ),
                ("amount_micros", models.BigIntegerField()),
                ("currency", models.CharField(max_length=3)),
                (
                    "thresholds",
                    django.contrib.postgres.fields.ArrayField(base_field=models.PositiveSmallIntegerField()),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[("notify", "Notify"), ("block_new", "Block new usage")],
                        default="notify",
                        max_length=16,
                    ),
                ),
                ("created_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "credential",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="credentials.apikey",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.organization",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.project",
                    ),
                ),
            ],
            options={
                "verbose_name": "budget",
                "verbose_name_plural": "budgets",
            },
        ),
        migrations.CreateModel(
            name="BudgetNotice",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("percent", models.PositiveSmallIntegerField()),
                ("amount_micros", models.BigIntegerField()),
                ("spent_micros", models.BigIntegerField()),
                ("noticed_at", models.DateTimeField()),
                (
                    "budget",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="notices",
                        to="billing.budget",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.organization",
                    ),
                ),
                (
                    "period",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.billingperiod",
                    ),
                ),
            ],
            options={
                "verbose_name": "budget notice",
                "verbose_name_plural": "budget notices",
            },
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="billing_budget_in_organization"
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_micros__gt", 0)), name="billing_budget_amount_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.CheckConstraint(
                condition=models.Q(("action__in", ["notify", "block_new"])),
                name="billing_budget_action_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("credential", None), ("project", None), ("scope", "organization")),
                    models.Q(("credential", None), ("project__isnull", False), ("scope", "project")),
                    models.Q(("credential__isnull", False), ("project", None), ("scope", "api_key")),
                    _connector="OR",
                ),
                name="billing_budget_scope_complete",
            ),
        ),
        migrations.AddConstraint(
            model_name="budgetnotice",
            constraint=models.UniqueConstraint(
                fields=("budget", "period", "percent"), name="billing_budgetnotice_once"
            ),
        ),
        composite_foreign_key(
            "billing_budget",
            ["organization_id", "project_id"],
            "organizations_project",
            TENANT,
            "billing_budget_project",
        ),
        composite_foreign_key(
            "billing_budget",
            ["organization_id", "credential_id"],
            "credentials_apikey",
            TENANT,
            "billing_budget_credential",
        ),
        composite_foreign_key(
            "billing_budgetnotice",
            ["organization_id", "budget_id"],
            "billing_budget",
            TENANT,
            "billing_budgetnotice_budget",
        ),
        composite_foreign_key(
            "billing_budgetnotice",
            ["organization_id", "period_id"],
            "organizations_billingperiod",
            TENANT,
            "billing_budgetnotice_period",
        ),
        append_only("billing_budgetnotice"),
    ]
