"""Tenant keys and guards of taxes and claims, and the standard rates of the European Union in force in 2026."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.db import migrations

from apps.core.db import append_only, composite_foreign_key
from apps.core.ids import uuid7

TENANT = ["organization_id", "id"]

# From eu-vat-rates-data 2026.9.29 (MIT), which reads the Commission's TEDB.
EU_PERCENT = (
    "AT 20 BE 21 BG 20 CY 19 CZ 21 DE 19 DK 25 EE 24 ES 21 FI 25.5 FR 20 GR 24 HR 25 HU 27 IE 23 IT 22 LT 21 LU 17 "
    "LV 21 MT 18 NL 21 PL 23 PT 23 RO 21 SE 25 SI 22 SK 23"
)


def add_rates(apps: Any, _schema_editor: Any) -> None:
    words = EU_PERCENT.split()
    rates = apps.get_model("invoices", "TaxRate")
    rates.objects.bulk_create(
        rates(
            id=uuid7(),
            country=country,
            percent=Decimal(percent),
            effective_from=date(2026, 1, 1),
            source="eu-vat-rates-data 2026.9.29",
            created_at=datetime(2026, 11, 22, tzinfo=UTC),
        )
        for country, percent in zip(words[::2], words[1::2], strict=True)
    )


def _stays_with_its_draft(table: str) -> migrations.RunSQL:
    return migrations.RunSQL(
        f'CREATE TRIGGER "{table}_stays" BEFORE INSERT OR UPDATE OR DELETE ON "{table}" '
        "FOR EACH ROW EXECUTE FUNCTION invoices_guard_line();"
        f'CREATE TRIGGER "{table}_table_stays" BEFORE TRUNCATE ON "{table}" '
        "FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();",
        f'DROP TRIGGER "{table}_stays" ON "{table}"; DROP TRIGGER "{table}_table_stays" ON "{table}";',
    )


class Migration(migrations.Migration):
    dependencies = [("invoices", "0003_tax_and_credit_notes")]

    operations = [
        composite_foreign_key(
            "invoices_invoice",
            ["organization_id", "corrects_id"],
            "invoices_invoice",
            TENANT,
            "invoices_invoice_corrected",
        ),
        composite_foreign_key(
            "invoices_invoicetax",
            ["organization_id", "invoice_id"],
            "invoices_invoice",
            TENANT,
            "invoices_invoicetax_invoice",
        ),
        composite_foreign_key(
            "invoices_invoiceclaim",
            ["organization_id", "invoice_id"],
            "invoices_invoice",
            TENANT,
            "invoices_invoiceclaim_invoice",
        ),
        composite_foreign_key(
            "invoices_invoiceclaim",
            ["organization_id", "key_id"],
            "billing_chargekey",
            TENANT,
            "invoices_invoiceclaim_charge_key",
        ),
        _stays_with_its_draft("invoices_invoicetax"),
        _stays_with_its_draft("invoices_invoiceclaim"),
        append_only("invoices_taxrate"),
        append_only("invoices_vatcheck"),
        migrations.RunPython(add_rates, migrations.RunPython.noop),
    ]
