"""Meters, SKUs, regions, price books in versions, and who is priced by which book."""

import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
import django.db.models.deletion
from django.db import migrations, models

import apps.core.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("organizations", "0001_organizations"),
    ]

    operations = [
        migrations.CreateModel(
            name="Meter",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("code", models.CharField(max_length=64, unique=True, verbose_name="code")),
                ("name", models.CharField(max_length=150, verbose_name="name")),
                (
                    "unit_label",
                    models.CharField(
                        help_text="What one unit is called, such as GB.", max_length=32, verbose_name="unit"
                    ),
                ),
                (
                    "unit_seconds",
                    models.PositiveIntegerField(default=1, editable=False, verbose_name="seconds per unit"),
                ),
            ],
            options={
                "verbose_name": "meter",
                "verbose_name_plural": "meters",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("code__regex", "^[a-z][a-z0-9_]*$")),
                        name="pricing_meter_code_form",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("unit_seconds__in", [1, 3600])),
                        name="pricing_meter_unit_seconds_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PriceBook",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=150, unique=True, verbose_name="name")),
                ("currency", models.CharField(max_length=3, verbose_name="currency")),
                (
                    "is_demonstration",
                    models.BooleanField(
                        default=False,
                        help_text="Never anybody's default; it must be assigned.",
                        verbose_name="demonstration",
                    ),
                ),
                ("created_at", models.DateTimeField(verbose_name="created")),
            ],
            options={
                "verbose_name": "price book",
                "verbose_name_plural": "price books",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("currency__regex", "^[A-Z]{3}$")),
                        name="pricing_pricebook_currency_form",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("name", ""), _negated=True), name="pricing_pricebook_name_given"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PriceBookVersion",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("number", models.PositiveIntegerField(verbose_name="number")),
                (
                    "state",
                    models.CharField(
                        choices=[("draft", "Draft"), ("published", "Published"), ("retired", "Retired")],
                        default="draft",
                        max_length=16,
                        verbose_name="state",
                    ),
                ),
                (
                    "effective_from",
                    models.DateTimeField(blank=True, null=True, verbose_name="effective from"),
                ),
                ("effective_to", models.DateTimeField(blank=True, null=True, verbose_name="effective to")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("published_at", models.DateTimeField(blank=True, null=True, verbose_name="published")),
                ("checksum", models.CharField(blank=True, max_length=64, verbose_name="checksum")),
                (
                    "book",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="versions",
                        to="pricing.pricebook",
                        verbose_name="price book",
                    ),
                ),
            ],
            options={
                "verbose_name": "version",
                "verbose_name_plural": "versions",
                "permissions": [("publish_pricebookversion", "Can publish, retire and add to versions")],
            },
        ),
        migrations.CreateModel(
            name="Price",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("key_id", models.UUIDField(default=apps.core.ids.uuid7, editable=False)),
                ("sku", models.CharField(default="*", max_length=100, verbose_name="SKU")),
                ("region", models.CharField(default="*", max_length=64, verbose_name="region")),
                (
                    "model",
                    models.CharField(
                        choices=[
                            ("per_unit", "Per unit"),
                            ("graduated", "Graduated tiers"),
                            ("volume", "Volume tiers"),
                            ("package", "Packages"),
                        ],
                        default="per_unit",
                        max_length=16,
                        verbose_name="model",
                    ),
                ),
                (
                    "unit_price",
                    models.DecimalField(
                        blank=True, decimal_places=10, max_digits=20, null=True, verbose_name="unit price"
                    ),
                ),
                ("tiers", models.JSONField(blank=True, null=True, verbose_name="tiers")),
                (
                    "package_size",
                    models.DecimalField(
                        blank=True, decimal_places=6, max_digits=38, null=True, verbose_name="package size"
                    ),
                ),
                (
                    "package_price",
                    models.DecimalField(
                        blank=True, decimal_places=10, max_digits=20, null=True, verbose_name="package price"
                    ),
                ),
                (
                    "free_units",
                    models.DecimalField(
                        blank=True, decimal_places=6, max_digits=38, null=True, verbose_name="free units"
                    ),
                ),
                (
                    "meter",
                    models.ForeignKey(
                        db_column="meter",
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="pricing.meter",
                        to_field="code",
                        verbose_name="meter",
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="prices",
                        to="pricing.pricebookversion",
                        verbose_name="version",
                    ),
                ),
            ],
            options={
                "verbose_name": "price",
                "verbose_name_plural": "prices",
            },
        ),
        migrations.CreateModel(
            name="Region",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("code", models.CharField(max_length=64, unique=True, verbose_name="code")),
                ("name", models.CharField(blank=True, max_length=150, verbose_name="name")),
            ],
            options={
                "verbose_name": "region",
                "verbose_name_plural": "regions",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("code__regex", "^[A-Za-z0-9]([A-Za-z0-9 ._:,+()-]*[A-Za-z0-9)+])?$")
                        ),
                        name="pricing_region_code_form",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Sku",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("code", models.CharField(max_length=100, unique=True, verbose_name="code")),
                ("name", models.CharField(blank=True, max_length=150, verbose_name="name")),
                ("family", models.CharField(blank=True, max_length=64, verbose_name="family")),
                ("attributes", models.JSONField(blank=True, default=dict, verbose_name="attributes")),
            ],
            options={
                "verbose_name": "SKU",
                "verbose_name_plural": "SKUs",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("code__regex", "^[A-Za-z0-9]([A-Za-z0-9 ._:,+()-]*[A-Za-z0-9)+])?$")
                        ),
                        name="pricing_sku_code_form",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="BookAssignment",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("effective_from", models.DateTimeField(verbose_name="effective from")),
                ("effective_to", models.DateTimeField(blank=True, null=True, verbose_name="effective to")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="book_assignments",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
                (
                    "book",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="assignments",
                        to="pricing.pricebook",
                        verbose_name="price book",
                    ),
                ),
            ],
            options={
                "verbose_name": "book assignment",
                "verbose_name_plural": "book assignments",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "id"), name="pricing_bookassignment_tenant"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("effective_to", None),
                            ("effective_to__gt", models.F("effective_from")),
                            _connector="OR",
                        ),
                        name="pricing_bookassignment_ends_after_start",
                    ),
                    django.contrib.postgres.constraints.ExclusionConstraint(
                        expressions=[
                            ("organization", "="),
                            (
                                models.Func(
                                    models.F("effective_from"),
                                    models.F("effective_to"),
                                    django.contrib.postgres.fields.ranges.RangeBoundary(),
                                    function="TSTZRANGE",
                                    output_field=django.contrib.postgres.fields.ranges.DateTimeRangeField(),
                                ),
                                "&&",
                            ),
                        ],
                        name="pricing_bookassignment_no_overlap",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="pricebookversion",
            constraint=models.UniqueConstraint(
                fields=("book", "number"), name="pricing_pricebookversion_number"
            ),
        ),
        migrations.AddConstraint(
            model_name="pricebookversion",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["draft", "published", "retired"])),
                name="pricing_pricebookversion_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="pricebookversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("effective_to", None), ("published_at", None), ("state", "draft")),
                    models.Q(
                        ("effective_from__isnull", False),
                        ("published_at__isnull", False),
                        ("state__in", ["published", "retired"]),
                    ),
                    _connector="OR",
                ),
                name="pricing_pricebookversion_published_has_dates",
            ),
        ),
        migrations.AddConstraint(
            model_name="pricebookversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", "retired"), _negated=True),
                    ("effective_to__isnull", False),
                    _connector="OR",
                ),
                name="pricing_pricebookversion_retired_has_end",
            ),
        ),
        migrations.AddConstraint(
            model_name="pricebookversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("effective_to", None), ("effective_to__gt", models.F("effective_from")), _connector="OR"
                ),
                name="pricing_pricebookversion_ends_after_start",
            ),
        ),
        migrations.AddConstraint(
            model_name="pricebookversion",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                condition=models.Q(("state", "draft"), _negated=True),
                expressions=[
                    ("book", "="),
                    (
                        models.Func(
                            models.F("effective_from"),
                            models.F("effective_to"),
                            django.contrib.postgres.fields.ranges.RangeBoundary(),
                            function="TSTZRANGE",
                            output_field=django.contrib.postgres.fields.ranges.DateTimeRangeField(),
                        ),
                        "&&",
                    ),
                ],
                name="pricing_pricebookversion_no_overlap",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.UniqueConstraint(
                fields=("version", "meter", "sku", "region"), name="pricing_price_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.UniqueConstraint(fields=("version", "key_id"), name="pricing_price_key_once"),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("free_units__isnull", True),
                        ("model", "per_unit"),
                        ("package_price__isnull", True),
                        ("package_size__isnull", True),
                        ("tiers__isnull", True),
                        ("unit_price__isnull", False),
                    ),
                    models.Q(
                        ("free_units__isnull", True),
                        ("model", "graduated"),
                        ("package_price__isnull", True),
                        ("package_size__isnull", True),
                        ("tiers__isnull", False),
                        ("unit_price__isnull", True),
                    ),
                    models.Q(
                        ("free_units__isnull", True),
                        ("model", "volume"),
                        ("package_price__isnull", True),
                        ("package_size__isnull", True),
                        ("tiers__isnull", False),
                        ("unit_price__isnull", True),
                    ),
                    models.Q(
                        ("free_units__isnull", False),
                        ("model", "package"),
                        ("package_price__isnull", False),
                        ("package_size__isnull", False),
                        ("tiers__isnull", True),
                        ("unit_price__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="pricing_price_model_has_its_columns",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("unit_price__isnull", True),
                        models.Q(("unit_price__gte", 0), ("unit_price__lt", 10000000000)),
                        _connector="OR",
                    ),
                    models.Q(
                        ("package_price__isnull", True),
                        models.Q(("package_price__gte", 0), ("package_price__lt", 10000000000)),
                        _connector="OR",
                    ),
                ),
                name="pricing_price_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("package_size", None),
                        models.Q(
                            ("package_size__gt", 0), ("package_size__lt", 100000000000000000000000000000000)
                        ),
                        _connector="OR",
                    ),
                    models.Q(
                        ("free_units", None),
                        models.Q(
                            ("free_units__gte", 0), ("free_units__lt", 100000000000000000000000000000000)
                        ),
                        _connector="OR",
                    ),
                ),
                name="pricing_price_package_positive",
            ),
        ),
    ]
