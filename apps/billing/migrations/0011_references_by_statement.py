"""Charged hours and burns are checked a statement at a time, and keep the indexes that are read."""

import django.db.models.deletion
from django.db import migrations, models

from apps.core.db import backwards, composite_foreign_key, composite_reference_by_statement

TENANT = ["organization_id", "id"]
REFERENCES = [
    ("billing_chargehour", "key", "billing_chargekey"),
    ("billing_burn", "key", "billing_chargekey"),
    ("billing_burn", "lot", "billing_creditlot"),
    ("billing_burn", "transfer", "ledger_transfer"),
]


def plain_column(model: str, field: str, to: str, related_name: str = "+") -> migrations.AlterField:
    """Return the operation that leaves a reference without foreign key and index of its own.

    The reference to the charge key implies the organization, and other indexes begin with the key.
    """
    return migrations.AlterField(
        model,
        field,
        models.ForeignKey(
            db_constraint=False,
            db_index=False,
            on_delete=django.db.models.deletion.PROTECT,
            related_name=related_name,
            to=to,
        ),
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0010_stop_requests"), ("ledger", "0005_payments_from_credit")]

    operations = [
        # What charges or reads charges at the moment has read its organization first, so it is over when this is locked.
        migrations.RunSQL("LOCK TABLE organizations_organization", migrations.RunSQL.noop),
        *(
            backwards(
                composite_foreign_key(
                    table, ["organization_id", f"{column}_id"], parent, TENANT, f"{table}_{column}"
                )
            )
            for table, column, parent in REFERENCES
        ),
        *(
            composite_reference_by_statement(
                table,
                f"{column}_id",
                parent,
                f"{table}_{column}_tenant",
                # Transfers are append-only.
                lock=parent != "ledger_transfer",
            )
            for table, column, parent in REFERENCES
        ),
        plain_column("chargehour", "organization", "organizations.organization"),
        plain_column("chargehour", "key", "billing.chargekey", "hours"),
        plain_column("burn", "organization", "organizations.organization"),
        plain_column("burn", "key", "billing.chargekey", "burns"),
    ]
