from django.db import migrations, models

import apps.core.ids
from apps.core.db import append_only


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AuditEvent",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("organization_id", models.UUIDField(blank=True, null=True, verbose_name="organization")),
                (
                    "actor_kind",
                    models.CharField(
                        choices=[
                            ("user", "User"),
                            ("api_key", "API key"),
                            ("integration", "Integration"),
                            ("staff", "Staff"),
                            ("system", "System"),
                        ],
                        max_length=16,
                        verbose_name="kind of actor",
                    ),
                ),
                ("actor_id", models.UUIDField(blank=True, null=True, verbose_name="actor id")),
                ("actor_label", models.CharField(max_length=254, verbose_name="actor")),
                ("on_behalf_of", models.CharField(blank=True, max_length=254, verbose_name="on behalf of")),
                ("credential_id", models.UUIDField(blank=True, null=True, verbose_name="credential")),
                ("address", models.CharField(blank=True, max_length=45, verbose_name="address")),
                ("action", models.CharField(max_length=64, verbose_name="action")),
                ("target_type", models.CharField(blank=True, max_length=64, verbose_name="target type")),
                ("target_id", models.CharField(blank=True, max_length=64, verbose_name="target id")),
                ("target_label", models.CharField(blank=True, max_length=254, verbose_name="target")),
                ("diff", models.JSONField(blank=True, default=dict, verbose_name="changes")),
                ("reason", models.TextField(blank=True, verbose_name="reason")),
                ("correlation_id", models.CharField(max_length=128, verbose_name="correlation id")),
                ("occurred_at", models.DateTimeField(verbose_name="occurred")),
            ],
            options={
                "verbose_name": "audit event",
                "verbose_name_plural": "audit events",
                "indexes": [
                    models.Index(
                        fields=["organization_id", "-occurred_at", "-id"],
                        name="audit_auditevent_organization",
                    ),
                    models.Index(fields=["-occurred_at", "-id"], name="audit_auditevent_time"),
                    models.Index(fields=["target_type", "target_id"], name="audit_auditevent_target"),
                    models.Index(fields=["correlation_id"], name="audit_auditevent_correlation"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("actor_kind__in", ["user", "api_key", "integration", "staff", "system"])
                        ),
                        name="audit_auditevent_actor_kind_known",
                    )
                ],
            },
        ),
        append_only("audit_auditevent"),
    ]
