"""Events and news are checked a batch at a time: a queued check for each row cost more than writing the row."""

from django.db import migrations

from apps.core.db import backwards, composite_foreign_key, composite_reference_by_statement

TENANT = ["organization_id", "id"]
REFERENCES = [
    ("metering_usageevent", "resource", "metering_resource"),
    ("metering_usageevent", "project", "organizations_project"),
    ("metering_usageevent", "credential", "credentials_apikey"),
    ("metering_dirtyresource", "resource", "metering_resource"),
]


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0002_guards"),
        ("organizations", "0001_organizations"),
        ("credentials", "0001_credentials"),
    ]

    operations = [
        *(
            backwards(
                composite_foreign_key(
                    table, ["organization_id", f"{column}_id"], parent, TENANT, f"{table}_{column}_tenant"
                )
            )
            for table, column, parent in REFERENCES
        ),
        *(
            composite_reference_by_statement(
                table,
                f"{column}_id",
                parent,
                f"{table}_{column}_tenant",
                # Resources stay, by the triggers below; there are too many in a batch to lock each.
                lock=parent != "metering_resource",
            )
            for table, column, parent in REFERENCES
        ),
        migrations.RunSQL(
            'CREATE TRIGGER "metering_resource_rows_stay" BEFORE DELETE ON "metering_resource" '
            "FOR EACH ROW EXECUTE FUNCTION countinghouse_refuse_change();"
            'CREATE TRIGGER "metering_resource_ids_stay" BEFORE UPDATE ON "metering_resource" FOR EACH ROW '
            "WHEN ((OLD.organization_id, OLD.id) IS DISTINCT FROM (NEW.organization_id, NEW.id)) "
            "EXECUTE FUNCTION countinghouse_refuse_change();"
            'CREATE TRIGGER "metering_resource_table_stays" BEFORE TRUNCATE ON "metering_resource" '
            "FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();",
            'DROP TRIGGER "metering_resource_rows_stay" ON "metering_resource";'
            'DROP TRIGGER "metering_resource_ids_stay" ON "metering_resource";'
            'DROP TRIGGER "metering_resource_table_stays" ON "metering_resource";',
        ),
    ]
