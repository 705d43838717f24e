from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0004_payments_next_look"),
    ]

    operations = [
        migrations.AddField(
            model_name="refund",
            name="message",
            field=models.CharField(blank=True, db_default="", default="", max_length=500),
        ),
    ]
