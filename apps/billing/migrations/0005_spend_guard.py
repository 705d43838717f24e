"""What staff allow beyond the credit, and every change of the billing state."""

import django.db.models.deletion
from django.db import migrations, models

import apps.core.ids
from apps.core.db import append_only


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0004_holds"),
        ("organizations", "0003_invites"),
    ]

    operations = [
        migrations.CreateModel(
            name="SpendGuard",
            fields=[
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="organizations.organization",
                    ),
                ),
                ("credit_limit_micros", models.BigIntegerField(default=0)),
                ("warn_below_micros", models.BigIntegerField(default=0)),
                ("suspended_at", models.DateTimeField(blank=True, null=True)),
                ("reason", models.CharField(blank=True, max_length=500)),
                ("depleted_at", models.DateTimeField(blank=True, null=True)),
                ("low_water_micros", models.BigIntegerField(blank=True, null=True)),
                ("runway_ends_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "spend guard",
                "verbose_name_plural": "spend guards",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("credit_limit_micros__gte", 0)),
                        name="billing_spendguard_limit_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("warn_below_micros__gte", 0)),
                        name="billing_spendguard_warning_not_negative",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BillingTransition",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("number", models.PositiveIntegerField()),
                (
                    "before",
                    models.CharField(
                        choices=[
                            ("healthy", "Healthy"),
                            ("low", "Low"),
                            ("depleted", "Depleted"),
                            ("suspended", "Suspended"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "after",
                    models.CharField(
                        choices=[
                            ("healthy", "Healthy"),
                            ("low", "Low"),
                            ("depleted", "Depleted"),
                            ("suspended", "Suspended"),
                        ],
                        max_length=16,
                    ),
                ),
                ("available_micros", models.BigIntegerField()),
                ("currency", models.CharField(max_length=3)),
                ("occurred_at", models.DateTimeField()),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "billing transition",
                "verbose_name_plural": "billing transitions",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "number"), name="billing_billingtransition_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("after__in", ["healthy", "low", "depleted", "suspended"]),
                            ("before__in", ["healthy", "low", "depleted", "suspended"]),
                        ),
                        name="billing_billingtransition_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("before", models.F("after")), _negated=True),
                        name="billing_billingtransition_changes",
                    ),
                ],
            },
        ),
        append_only("billing_billingtransition"),
    ]
