"""Files of documents belong to their tenant's document and stay."""

from django.db import migrations

from apps.core.db import append_only, composite_foreign_key


class Migration(migrations.Migration):
    dependencies = [("invoices", "0005_files")]

    operations = [
        composite_foreign_key(
            "invoices_invoicefile",
            ["organization_id", "invoice_id"],
            "invoices_invoice",
            ["organization_id", "id"],
            "invoices_invoicefile_invoice",
        ),
        append_only("invoices_invoicefile"),
    ]
