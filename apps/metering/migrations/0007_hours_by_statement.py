"""Hours are checked a statement at a time, as events are: a queued check for each cost as much as writing it."""

from django.db import migrations

from apps.core.db import backwards, composite_foreign_key, composite_reference_by_statement

TABLE, TENANT = "metering_usagehour", ["organization_id", "id"]
PARENTS = {
    "resource": "metering_resource",
    "project": "organizations_project",
    "credential": "credentials_apikey",
}


class Migration(migrations.Migration):
    dependencies = [("metering", "0006_folded_batches")]

    operations = [
        # In the order in which ticks and ingestion take them, so that nobody waits for each other in a circle.
        migrations.RunSQL(
            "LOCK TABLE metering_meteringstate, organizations_project, credentials_apikey, metering_resource",
            migrations.RunSQL.noop,
        ),
        *(
            backwards(
                composite_foreign_key(
                    TABLE, ["organization_id", f"{column}_id"], parent, TENANT, f"{TABLE}_{column}_tenant"
                )
            )
            for column, parent in PARENTS.items()
        ),
        *(
            composite_reference_by_statement(
                TABLE,
                f"{column}_id",
                parent,
                f"{TABLE}_{column}_tenant",
                # Resources are never deleted, by a trigger of their own.
                lock=parent != "metering_resource",
            )
            for column, parent in PARENTS.items()
        ),
    ]
