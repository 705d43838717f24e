"""Which resources were asked to stop; the guard is found from its organization."""

import django.db.models.deletion
from django.db import migrations, models

import apps.core.ids
from apps.core.db import append_only


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0009_stop_requested"),
        ("organizations", "0004_billing_profiles"),
    ]

    operations = [
        migrations.AlterField(
            model_name="spendguard",
            name="organization",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.PROTECT,
                primary_key=True,
                related_name="spend_guard",
                serialize=False,
                to="organizations.organization",
            ),
        ),
        migrations.CreateModel(
            name="StopRequest",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("source", models.CharField(max_length=255)),
                ("subject", models.CharField(max_length=255)),
                ("requested_at", models.DateTimeField()),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "stop request",
                "verbose_name_plural": "stop requests",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "requested_at", "source", "subject"),
                        name="billing_stoprequest_once",
                    )
                ],
            },
        ),
        append_only("billing_stoprequest"),
    ]
