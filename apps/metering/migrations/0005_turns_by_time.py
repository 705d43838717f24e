"""Starts, stops and resizes in order of time: counting begins at the last stop, however many came before."""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # An index is made concurrently outside of any transaction.

    dependencies = [("metering", "0004_dirty_batches")]

    operations = [
        AddIndexConcurrently(
            model_name="usageevent",
            index=models.Index(
                condition=models.Q(
                    ("type__in", ["allocation.started", "allocation.resized", "allocation.stopped"])
                ),
                fields=["resource", "time"],
                name="metering_usageevent_turn_times",
            ),
        ),
        RemoveIndexConcurrently(model_name="usageevent", name="metering_usageevent_turns"),
    ]
