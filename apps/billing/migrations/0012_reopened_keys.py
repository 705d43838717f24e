"""Which charges of final periods later invoices look at; of those that are final already, all of them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0011_references_by_statement"),
    ]

    operations = [
        migrations.AddField(
            model_name="chargekey",
            name="is_reopened",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.RunSQL(
            """
            UPDATE billing_chargekey SET is_reopened = true FROM organizations_billingperiod period
             WHERE period.id = billing_chargekey.period_id AND period.state = 'final'
            """,
            migrations.RunSQL.noop,
        ),
    ]
