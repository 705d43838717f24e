"""The meters that every installation has; the operator may add others, which are sums."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

METERS = [
    ("gpu_hours", "GPU time", "GPU-hour", 3600),
    ("instance_hours", "Instance time", "instance-hour", 3600),
    ("storage_gb_hours", "Storage", "GB-hour", 1),
    ("egress_gb", "Outgoing traffic", "GB", 1),
    ("requests", "Requests", "request", 1),
    ("tokens", "Tokens", "token", 1),
]


def add_meters(apps: StateApps, _schema_editor: BaseDatabaseSchemaEditor) -> None:
    meter = apps.get_model("pricing", "Meter")
    for code, name, unit_label, unit_seconds in METERS:
        meter.objects.get_or_create(
            code=code, defaults={"name": name, "unit_label": unit_label, "unit_seconds": unit_seconds}
        )


class Migration(migrations.Migration):
    dependencies = [("pricing", "0002_guards")]

    # Going back keeps the meters: the tables go with them.
    operations = [migrations.RunPython(add_meters, migrations.RunPython.noop)]
