from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("organizations", "0005_drafted_at"),
        ("payments", "0005_refund_messages"),
    ]

    operations = [
        migrations.AddField(
            model_name="payment",
            name="attempt_id",
            field=models.UUIDField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="refund",
            name="attempt_id",
            field=models.UUIDField(blank=True, editable=False, null=True),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.UniqueConstraint(
                fields=("payment", "attempt_id"), name="payments_refund_attempt_once"
            ),
        ),
    ]
