"""Campaigns that give credit away, their codes and redemptions."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import apps.core.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("billing", "0004_holds"),
        ("organizations", "0003_invites"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Campaign",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        help_text="Customers read it on their statement.",
                        max_length=150,
                        unique=True,
                        verbose_name="name",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("shared", "One code for all"), ("unique", "A code for each")],
                        max_length=8,
                        verbose_name="codes",
                    ),
                ),
                ("amount_micros", models.BigIntegerField(verbose_name="amount")),
                ("currency", models.CharField(max_length=3, verbose_name="currency")),
                ("redemptions_max", models.PositiveIntegerField(verbose_name="redemptions in all")),
                (
                    "organization_max",
                    models.PositiveSmallIntegerField(default=1, verbose_name="redemptions per organization"),
                ),
                ("starts_at", models.DateTimeField(verbose_name="from")),
                ("ends_at", models.DateTimeField(blank=True, null=True, verbose_name="until")),
                (
                    "credit_days",
                    models.PositiveSmallIntegerField(
                        blank=True, null=True, verbose_name="days the credit lasts"
                    ),
                ),
                (
                    "new_within_days",
                    models.PositiveSmallIntegerField(
                        blank=True, null=True, verbose_name="only organizations made within days"
                    ),
                ),
                (
                    "allowed_domains",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=253),
                        blank=True,
                        default=list,
                        verbose_name="only mail domains",
                    ),
                ),
                (
                    "redeemed_count",
                    models.PositiveIntegerField(default=0, editable=False, verbose_name="redeemed"),
                ),
                ("ended_at", models.DateTimeField(blank=True, null=True, verbose_name="ended early")),
                ("created_by_label", models.CharField(max_length=254, verbose_name="by")),
                ("created_at", models.DateTimeField(verbose_name="created")),
            ],
            options={
                "verbose_name": "voucher campaign",
                "verbose_name_plural": "voucher campaigns",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["shared", "unique"])),
                        name="vouchers_campaign_kind_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("amount_micros__gt", 0)), name="vouchers_campaign_amount_positive"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("currency__regex", "^[A-Z]{3}$")),
                        name="vouchers_campaign_currency_code",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("redeemed_count__lte", models.F("redemptions_max")), ("redemptions_max__gte", 1)
                        ),
                        name="vouchers_campaign_within_limit",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("organization_max__gte", 1)),
                        name="vouchers_campaign_organization_max",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("ends_at", None), ("ends_at__gt", models.F("starts_at")), _connector="OR"
                        ),
                        name="vouchers_campaign_forward",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("credit_days", None), ("credit_days__gte", 1), _connector="OR"),
                        name="vouchers_campaign_lasts",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="VoucherCode",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("digest", models.BinaryField(max_length=32, unique=True, verbose_name="hash")),
                ("hint", models.CharField(max_length=4, verbose_name="ends with")),
                ("redemptions_max", models.PositiveIntegerField(verbose_name="redemptions in all")),
                ("redeemed_count", models.PositiveIntegerField(default=0, verbose_name="redeemed")),
                ("voided_at", models.DateTimeField(blank=True, null=True, verbose_name="void since")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                (
                    "campaign",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="codes",
                        to="vouchers.campaign",
                        verbose_name="campaign",
                    ),
                ),
            ],
            options={
                "verbose_name": "voucher code",
                "verbose_name_plural": "voucher codes",
            },
        ),
        migrations.CreateModel(
            name="Redemption",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("ordinal", models.PositiveSmallIntegerField(verbose_name="number")),
                ("redeemed_by_label", models.CharField(max_length=254, verbose_name="by")),
                ("created_at", models.DateTimeField(verbose_name="redeemed")),
                (
                    "campaign",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="redemptions",
                        to="vouchers.campaign",
                        verbose_name="campaign",
                    ),
                ),
                (
                    "lot",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.creditlot",
                        verbose_name="credit lot",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
                (
                    "redeemed_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "code",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="redemptions",
                        to="vouchers.vouchercode",
                        verbose_name="code",
                    ),
                ),
            ],
            options={
                "verbose_name": "redemption",
                "verbose_name_plural": "redemptions",
            },
        ),
        migrations.AddConstraint(
            model_name="vouchercode",
            constraint=models.UniqueConstraint(
                fields=("campaign", "id"), name="vouchers_vouchercode_of_campaign"
            ),
        ),
        migrations.AddConstraint(
            model_name="vouchercode",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("redeemed_count__lte", models.F("redemptions_max")), ("redemptions_max__gte", 1)
                ),
                name="vouchers_vouchercode_within_limit",
            ),
        ),
        migrations.AddIndex(
            model_name="redemption",
            index=models.Index(fields=["-created_at", "-id"], name="vouchers_redemption_created"),
        ),
        migrations.AddConstraint(
            model_name="redemption",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="vouchers_redemption_tenant"
            ),
        ),
        migrations.AddConstraint(
            model_name="redemption",
            constraint=models.UniqueConstraint(
                fields=("campaign", "organization", "ordinal"), name="vouchers_redemption_ordinal"
            ),
        ),
        migrations.AddConstraint(
            model_name="redemption",
            constraint=models.UniqueConstraint(
                fields=("code", "organization"), name="vouchers_redemption_code_once"
            ),
        ),
    ]
