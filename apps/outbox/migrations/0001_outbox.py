import django.core.serializers.json
from django.db import migrations, models

import apps.core.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="OutboxEvent",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("organization_id", models.UUIDField(blank=True, null=True, verbose_name="organization")),
                ("event_type", models.CharField(max_length=64, verbose_name="type")),
                (
                    "payload",
                    models.JSONField(
                        encoder=django.core.serializers.json.DjangoJSONEncoder, verbose_name="payload"
                    ),
                ),
                ("correlation_id", models.CharField(max_length=128, verbose_name="correlation id")),
                ("created_at", models.DateTimeField(verbose_name="created")),
            ],
            options={
                "verbose_name": "outbox event",
                "verbose_name_plural": "outbox events",
                "indexes": [
                    models.Index(
                        fields=["organization_id", "-created_at", "-id"], name="outbox_outboxevent_org"
                    ),
                    models.Index(fields=["-created_at", "-id"], name="outbox_outboxevent_time"),
                ],
            },
        ),
    ]
