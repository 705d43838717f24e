"""Prices of an organization's own, and percentages off its book: dated, never overlapping, ended once."""

import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
import django.db.models.deletion
import django.db.models.functions.comparison
from django.db import migrations, models

import apps.core.ids
from apps.core.db import whole_hour

TABLE = "pricing_priceoverride"

GUARD = """
CREATE FUNCTION pricing_guard_overrides() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- `- text[]` takes out the columns that the database computes itself: a trigger sees them empty.
    IF TG_OP <> 'UPDATE' OR OLD.effective_to IS NOT NULL
        OR to_jsonb(NEW) - ARRAY['effective_to', 'sku_code', 'region_code']
            <> to_jsonb(OLD) - ARRAY['effective_to', 'sku_code', 'region_code']
    THEN
        RAISE EXCEPTION 'An override only ends, once; % is refused.', TG_OP USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER pricing_priceoverride_rows_stay BEFORE UPDATE OR DELETE ON pricing_priceoverride
    FOR EACH ROW EXECUTE FUNCTION pricing_guard_overrides();
CREATE TRIGGER pricing_priceoverride_table_stays BEFORE TRUNCATE ON pricing_priceoverride
    FOR EACH STATEMENT EXECUTE FUNCTION pricing_guard_overrides();
"""
GUARD_BACK = """
DROP TRIGGER pricing_priceoverride_rows_stay ON pricing_priceoverride;
DROP TRIGGER pricing_priceoverride_table_stays ON pricing_priceoverride;
DROP FUNCTION pricing_guard_overrides();
"""


def code_exists(column: str, to_table: str) -> migrations.RunSQL:
    # `*` matches any code and refers to none, and a percentage has no code at all.
    name = f"{TABLE}_{column}_exists"
    return migrations.RunSQL(
        f"ALTER TABLE {TABLE} ADD COLUMN {column}_code varchar(100) "
        f"GENERATED ALWAYS AS (NULLIF(NULLIF({column}, '*'), '')) STORED;"
        f"ALTER TABLE {TABLE} ADD CONSTRAINT {name} FOREIGN KEY ({column}_code) REFERENCES {to_table} (code)",
        f"ALTER TABLE {TABLE} DROP CONSTRAINT {name}; ALTER TABLE {TABLE} DROP COLUMN {column}_code",
    )


class Migration(migrations.Migration):
    dependencies = [
        ("organizations", "0001_organizations"),
        ("pricing", "0003_meters"),
    ]

    operations = [
        migrations.CreateModel(
            name="PriceOverride",
            fields=[
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
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("key_id", models.UUIDField(default=apps.core.ids.uuid7, editable=False)),
                ("currency", models.CharField(max_length=3, verbose_name="currency")),
                (
                    "percent",
                    models.DecimalField(
                        blank=True,
                        decimal_places=4,
                        help_text="-20 makes every price of the book a fifth lower.",
                        max_digits=7,
                        null=True,
                        verbose_name="percent",
                    ),
                ),
                ("sku", models.CharField(blank=True, max_length=100, verbose_name="SKU")),
                ("region", models.CharField(blank=True, max_length=64, verbose_name="region")),
                (
                    "model",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("per_unit", "Per unit"),
                            ("graduated", "Graduated tiers"),
                            ("volume", "Volume tiers"),
                            ("package", "Packages"),
                        ],
                        max_length=16,
                        verbose_name="model",
                    ),
                ),
                ("effective_from", models.DateTimeField(verbose_name="effective from")),
                ("effective_to", models.DateTimeField(blank=True, null=True, verbose_name="effective to")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                (
                    "meter",
                    models.ForeignKey(
                        blank=True,
                        db_column="meter",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="pricing.meter",
                        to_field="code",
                        verbose_name="meter",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="price_overrides",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "price override",
                "verbose_name_plural": "price overrides",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "id"), name="pricing_priceoverride_tenant"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("meter__isnull", False),
                                ("percent", None),
                                models.Q(("sku", ""), _negated=True),
                                models.Q(("region", ""), _negated=True),
                                models.Q(
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
                            ),
                            models.Q(
                                ("meter", None),
                                ("percent__isnull", False),
                                ("region", ""),
                                ("sku", ""),
                                ("free_units__isnull", True),
                                ("model", ""),
                                ("package_price__isnull", True),
                                ("package_size__isnull", True),
                                ("tiers__isnull", True),
                                ("unit_price__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="pricing_priceoverride_price_or_percent",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("percent", None),
                            models.Q(
                                ("percent__gte", -100),
                                ("percent__lte", 100),
                                models.Q(("percent", 0), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="pricing_priceoverride_percent_within",
                    ),
                    models.CheckConstraint(
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
                        name="pricing_priceoverride_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("package_size", None),
                                models.Q(
                                    ("package_size__gt", 0),
                                    ("package_size__lt", 100000000000000000000000000000000),
                                ),
                                _connector="OR",
                            ),
                            models.Q(
                                ("free_units", None),
                                models.Q(
                                    ("free_units__gte", 0),
                                    ("free_units__lt", 100000000000000000000000000000000),
                                ),
                                _connector="OR",
                            ),
                        ),
                        name="pricing_priceoverride_package_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("effective_to", None),
                            ("effective_to__gt", models.F("effective_from")),
                            _connector="OR",
                        ),
                        name="pricing_priceoverride_ends_after_start",
                    ),
                    django.contrib.postgres.constraints.ExclusionConstraint(
                        expressions=[
                            ("organization", "="),
                            (django.db.models.functions.comparison.Coalesce("meter", models.Value("")), "="),
                            ("sku", "="),
                            ("region", "="),
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
                        name="pricing_priceoverride_no_overlap",
                    ),
                ],
            },
        ),
        whole_hour(TABLE, "effective_from"),
        whole_hour(TABLE, "effective_to"),
        code_exists("sku", "pricing_sku"),
        code_exists("region", "pricing_region"),
        migrations.RunSQL(
            f"ALTER TABLE {TABLE} ADD CONSTRAINT pricing_priceoverride_tiers_sound "
            "CHECK (pricing_tiers_are_sound(tiers))",
            f"ALTER TABLE {TABLE} DROP CONSTRAINT pricing_priceoverride_tiers_sound",
        ),
        migrations.RunSQL(GUARD, GUARD_BACK),
    ]
