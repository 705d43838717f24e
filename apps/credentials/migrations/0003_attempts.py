import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("credentials", "0002_tokens"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="attempts",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.UUIDField(), db_default=[], default=list, editable=False
            ),
        ),
        migrations.AddField(
            model_name="integration",
            name="attempts",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.UUIDField(), db_default=[], default=list, editable=False
            ),
        ),
    ]
