"""Where documents and journal entries keep what they call the organization."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("invoices", "0010_what_waits")]

    operations = [
        migrations.AddField(
            model_name="invoice",
            name="organization_slug",
            field=models.CharField(blank=True, db_default="", max_length=63),
        ),
        migrations.AddField(
            model_name="journalentry",
            name="organization_slug",
            field=models.CharField(db_default="", max_length=63),
        ),
    ]
