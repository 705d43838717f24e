"""What a hold of a launch is about; an empty source is any."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0007_payments_taken_back"),
    ]

    operations = [
        migrations.AddField(
            model_name="hold",
            name="gpus",
            field=models.DecimalField(blank=True, decimal_places=3, max_digits=12, null=True),
        ),
        migrations.AddField(
            model_name="hold",
            name="region",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="hold",
            name="sku",
            field=models.CharField(blank=True, max_length=120),
        ),
        migrations.AlterField(
            model_name="hold",
            name="source",
            field=models.CharField(blank=True, max_length=255),
        ),
    ]
