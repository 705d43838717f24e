"""What PostgreSQL refuses: another tenant's rows behind a reference, and an event that changes."""

from django.db import migrations

from apps.core.db import append_only, composite_foreign_key

TENANT = ["organization_id", "id"]
REFERENCES = {
    "metering_usageevent": {
        "resource": "metering_resource",
        "project": "organizations_project",
        "credential": "credentials_apikey",
    },
    "metering_dirtyresource": {"resource": "metering_resource"},
    "metering_usagehour": {
        "resource": "metering_resource",
        "project": "organizations_project",
        "credential": "credentials_apikey",
    },
}


class Migration(migrations.Migration):
    dependencies = [("metering", "0001_usage")]

    operations = [
        *(
            composite_foreign_key(
                table, ["organization_id", f"{column}_id"], parent, TENANT, f"{table}_{column}_tenant"
            )
            for table, columns in REFERENCES.items()
            for column, parent in columns.items()
        ),
        append_only("metering_usageevent"),
    ]
