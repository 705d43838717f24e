"""The view of what each transfer did to a customer's own accounts."""

from django.db import migrations, models

# LATERAL, so that the transfers are read once, along their index of a statement, and each is looked at from both sides.
_VIEW = """
CREATE VIEW ledger_movement AS
SELECT CASE WHEN side.is_second AND other.kind IN ('paid_lot', 'promo_lot', 'receivable')
            THEN md5(transfer.id::text || ':credit')::uuid ELSE transfer.id END AS id,
       transfer.organization_id, transfer.currency, transfer.id AS transfer_id, own.id AS account_id,
       own.kind AS account_kind, side.signed_micros, transfer.kind, transfer.reason, transfer.reference,
       transfer.occurred_at, transfer.created_at
FROM ledger_transfer transfer
CROSS JOIN LATERAL (VALUES
    (transfer.debit_id, transfer.credit_id, -transfer.amount_micros, false),
    (transfer.credit_id, transfer.debit_id, transfer.amount_micros, true)
) AS side (own_id, other_id, signed_micros, is_second)
JOIN ledger_account own ON own.id = side.own_id AND own.kind IN ('paid_lot', 'promo_lot', 'receivable')
JOIN ledger_account other ON other.id = side.other_id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("ledger", "0005_payments_from_credit"),
    ]

    operations = [
        migrations.RunSQL(_VIEW, "DROP VIEW ledger_movement"),
        migrations.CreateModel(
            name="Movement",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("organization_id", models.UUIDField()),
                ("currency", models.TextField()),
                ("transfer_id", models.UUIDField()),
                ("account_id", models.UUIDField()),
                ("account_kind", models.TextField()),
                ("signed_micros", models.BigIntegerField()),
                ("kind", models.TextField()),
                ("reason", models.TextField()),
                ("reference", models.TextField()),
                ("occurred_at", models.DateTimeField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "movement",
                "verbose_name_plural": "movements",
                "managed": False,
                "default_permissions": (),
            },
        ),
    ]
