"""News about resources: one row for each organization of a batch instead of one for each resource."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

from apps.core.db import backwards, composite_reference_by_statement

CHECKED = composite_reference_by_statement(
    "metering_dirtyresource",
    "resource_id",
    "metering_resource",
    "metering_dirtyresource_resource_tenant",
    lock=False,
)


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0003_references_by_statement"),
        ("organizations", "0001_organizations"),
    ]

    operations = [
        migrations.CreateModel(
            name="DirtyBatch",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "resource_ids",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.UUIDField(), size=None, verbose_name="resources"
                    ),
                ),
                (
                    "since",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.DateTimeField(), size=None, verbose_name="since"
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "batch to count",
                "verbose_name_plural": "batches to count",
            },
        ),
        migrations.AddIndex(
            model_name="dirtybatch",
            index=models.Index(fields=["organization", "id"], name="metering_dirtybatch_queue"),
        ),
        migrations.AddConstraint(
            model_name="dirtybatch",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("resource_ids__len", models.F("since__len")), ("resource_ids__len__gt", 0)
                ),
                name="metering_dirtybatch_complete",
            ),
        ),
        # Rows stay within one page, so that trying to compress them or to store them elsewhere costs nothing.
        migrations.RunSQL(
            'ALTER TABLE "metering_dirtybatch" ALTER COLUMN "resource_ids" SET STORAGE PLAIN, '
            'ALTER COLUMN "since" SET STORAGE PLAIN',
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            'INSERT INTO "metering_dirtybatch" (organization_id, resource_ids, since) '
            'SELECT organization_id, ARRAY[resource_id], ARRAY[since] FROM "metering_dirtyresource" ORDER BY id',
            'INSERT INTO "metering_dirtyresource" (organization_id, resource_id, since) '
            'SELECT organization_id, unnest(resource_ids), unnest(since) FROM "metering_dirtybatch" ORDER BY id',
        ),
        backwards(CHECKED),
        migrations.DeleteModel(name="DirtyResource"),
    ]
