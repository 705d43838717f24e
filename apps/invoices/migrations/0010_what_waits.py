"""What a final period's document could not say is kept beside its close."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("invoices", "0009_journal_guards")]

    operations = [
        migrations.AddField(
            model_name="periodclose",
            name="waiting",
            field=models.JSONField(blank=True, db_default=[], default=list),
        ),
    ]
