from django.db import migrations, models

import apps.core.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="StoredAnswer",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("organization_id", models.UUIDField(null=True, verbose_name="organization")),
                ("principal", models.CharField(max_length=64, verbose_name="principal")),
                ("key", models.CharField(max_length=255, verbose_name="key")),
                ("fingerprint", models.BinaryField(max_length=32, verbose_name="fingerprint")),
                ("status", models.PositiveSmallIntegerField(verbose_name="status")),
                ("headers", models.JSONField(default=dict, verbose_name="headers")),
                ("body", models.BinaryField(verbose_name="body")),
                ("created_at", models.DateTimeField(verbose_name="created")),
            ],
            options={
                "verbose_name": "stored answer",
                "verbose_name_plural": "stored answers",
                "indexes": [models.Index(fields=["created_at"], name="idempotency_storedanswer_age")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization_id", "principal", "key"),
                        name="idempotency_storedanswer_key",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
    ]
