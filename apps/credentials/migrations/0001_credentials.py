import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import apps.core.ids
from apps.core.db import composite_foreign_key


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("organizations", "0001_organizations"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Integration",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("public_id", models.CharField(max_length=8, unique=True, verbose_name="public id")),
                ("digest", models.BinaryField(max_length=32, verbose_name="hash")),
                (
                    "previous_digest",
                    models.BinaryField(max_length=32, null=True, verbose_name="previous hash"),
                ),
                (
                    "previous_expires_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="previous secret works until"),
                ),
                ("name", models.CharField(max_length=150, verbose_name="name")),
                (
                    "scopes",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=64), verbose_name="scopes"
                    ),
                ),
                (
                    "allowed_addresses",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=49),
                        blank=True,
                        default=list,
                        verbose_name="allowed addresses",
                    ),
                ),
                ("is_active", models.BooleanField(default=True, verbose_name="active")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires")),
                ("revoked_at", models.DateTimeField(blank=True, null=True, verbose_name="revoked")),
                ("last_used_at", models.DateTimeField(blank=True, null=True, verbose_name="last used")),
                (
                    "last_used_address",
                    models.CharField(blank=True, max_length=45, verbose_name="last used from"),
                ),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("created_by_label", models.CharField(max_length=254, verbose_name="created by")),
            ],
            options={
                "verbose_name": "integration",
                "verbose_name_plural": "integrations",
                "indexes": [models.Index(fields=["-created_at", "-id"], name="credentials_integration_made")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "scopes__contained_by",
                                [
                                    "usage:write",
                                    "usage:backfill",
                                    "entitlements:check",
                                    "holds:write",
                                    "pricing:manage",
                                    "metrics:read",
                                    "organization.read",
                                    "organization.update",
                                    "organization.delete",
                                    "organization.transfer",
                                    "members.read",
                                    "members.invite",
                                    "members.manage",
                                    "projects.read",
                                    "projects.manage",
                                    "api_keys.read",
                                    "api_keys.create",
                                    "api_keys.manage",
                                    "usage.read",
                                    "billing.read",
                                    "billing.top_up",
                                    "billing.manage",
                                    "budgets.manage",
                                    "quotas.read",
                                    "quotas.request",
                                    "audit.read",
                                ],
                            )
                        ),
                        name="credentials_integration_scopes_known",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("public_id", models.CharField(max_length=8, unique=True, verbose_name="public id")),
                ("digest", models.BinaryField(max_length=32, verbose_name="hash")),
                (
                    "previous_digest",
                    models.BinaryField(max_length=32, null=True, verbose_name="previous hash"),
                ),
                (
                    "previous_expires_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="previous secret works until"),
                ),
                ("name", models.CharField(max_length=150, verbose_name="name")),
                (
                    "scopes",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=64), verbose_name="scopes"
                    ),
                ),
                (
                    "allowed_addresses",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=49),
                        blank=True,
                        default=list,
                        verbose_name="allowed addresses",
                    ),
                ),
                ("is_active", models.BooleanField(default=True, verbose_name="active")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires")),
                ("revoked_at", models.DateTimeField(blank=True, null=True, verbose_name="revoked")),
                ("last_used_at", models.DateTimeField(blank=True, null=True, verbose_name="last used")),
                (
                    "last_used_address",
                    models.CharField(blank=True, max_length=45, verbose_name="last used from"),
                ),
                ("created_at", models.DateTimeField(verbose_name="created")),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="api_keys",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="created by",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="api_keys",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="api_keys",
                        to="organizations.project",
                        verbose_name="project",
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
                "verbose_name_plural": "API keys",
                "indexes": [
                    models.Index(
                        fields=["organization", "-created_at", "-id"], name="credentials_apikey_created"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="credentials_apikey_tenant"),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "scopes__contained_by",
                                [
                                    "organization.read",
                                    "organization.update",
                                    "organization.delete",
                                    "organization.transfer",
                                    "members.read",
                                    "members.invite",
                                    "members.manage",
                                    "projects.read",
                                    "projects.manage",
                                    "api_keys.read",
                                    "api_keys.create",
                                    "api_keys.manage",
                                    "usage.read",
                                    "billing.read",
                                    "billing.top_up",
                                    "billing.manage",
                                    "budgets.manage",
                                    "quotas.read",
                                    "quotas.request",
                                    "audit.read",
                                ],
                            )
                        ),
                        name="credentials_apikey_scopes_known",
                    ),
                ],
            },
        ),
        composite_foreign_key(
            "credentials_apikey",
            ["organization_id", "project_id"],
            "organizations_project",
            ["organization_id", "id"],
            "credentials_apikey_project",
        ),
    ]
