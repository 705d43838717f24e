"""Live payments are asked about less and less often: each knows when next."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("payments", "0003_invoices_own_due_dates")]

    operations = [
        migrations.AddField(
            model_name="payment",
            name="next_look_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
