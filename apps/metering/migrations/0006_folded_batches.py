"""Rows of the queue that name each resource of several batches once."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("metering", "0005_turns_by_time")]

    operations = [
        migrations.AddField(
            model_name="dirtybatch",
            name="is_folded",
            field=models.BooleanField(db_default=False, default=False, verbose_name="folded"),
        ),
    ]
