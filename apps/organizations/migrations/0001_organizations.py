import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
import django.db.models.constraints
import django.db.models.deletion
from django.conf import settings
from django.contrib.postgres.operations import BtreeGistExtension
from django.db import migrations, models

import apps.core.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        # Periods of one organization exclude each other, which needs equality in a GiST index.
        BtreeGistExtension(),
        migrations.CreateModel(
            name="Organization",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("slug", models.CharField(max_length=63, unique=True, verbose_name="slug")),
                ("name", models.CharField(max_length=150, verbose_name="name")),
                (
                    "status",
                    models.CharField(
                        choices=[("active", "Active"), ("suspended", "Suspended"), ("deleted", "Deleted")],
                        default="active",
                        max_length=16,
                        verbose_name="status",
                    ),
                ),
                (
                    "billing_email",
                    models.EmailField(blank=True, max_length=254, verbose_name="billing e-mail"),
                ),
                ("currency", models.CharField(max_length=3, verbose_name="currency")),
                ("timezone", models.CharField(default="UTC", max_length=64, verbose_name="time zone")),
                ("plan", models.CharField(default="free", max_length=32, verbose_name="plan")),
                (
                    "billing_state",
                    models.CharField(
                        choices=[
                            ("healthy", "Healthy"),
                            ("low", "Low"),
                            ("depleted", "Depleted"),
                            ("suspended", "Suspended"),
                        ],
                        default="healthy",
                        max_length=16,
                        verbose_name="billing state",
                    ),
                ),
                ("require_mfa", models.BooleanField(default=False, verbose_name="requires a second factor")),
                ("is_demonstration", models.BooleanField(default=False, verbose_name="demonstration")),
                ("created_at", models.DateTimeField(verbose_name="created")),
            ],
            options={
                "verbose_name": "organization",
                "verbose_name_plural": "organizations",
                "indexes": [models.Index(fields=["created_at", "id"], name="organizations_org_created")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("slug__regex", "^[a-z0-9](-?[a-z0-9])*$"),
                            models.Q(
                                ("slug__regex", "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"), _negated=True
                            ),
                        ),
                        name="organizations_organization_slug_form",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("currency__regex", "^[A-Z]{3}$")),
                        name="organizations_organization_currency_form",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["active", "suspended", "deleted"])),
                        name="organizations_organization_status_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("billing_state__in", ["healthy", "low", "depleted", "suspended"])
                        ),
                        name="organizations_organization_billing_state_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("owner", "Owner"),
                            ("admin", "Admin"),
                            ("billing", "Billing"),
                            ("developer", "Developer"),
                            ("viewer", "Viewer"),
                        ],
                        max_length=16,
                        verbose_name="role",
                    ),
                ),
                ("is_default", models.BooleanField(default=False, verbose_name="default of the user")),
                ("suspended_at", models.DateTimeField(blank=True, null=True, verbose_name="suspended")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="memberships",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="memberships",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "membership",
                "verbose_name_plural": "memberships",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "user"), name="organizations_membership_once"
                    ),
                    models.UniqueConstraint(
                        fields=("organization", "id"), name="organizations_membership_tenant"
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("is_default", True)),
                        fields=("user",),
                        name="organizations_membership_one_default",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("role__in", ["owner", "admin", "billing", "developer", "viewer"])
                        ),
                        name="organizations_membership_role_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BillingPeriod",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("label", models.CharField(max_length=7, verbose_name="label")),
                ("starts_at", models.DateTimeField(verbose_name="starts")),
                ("ends_at", models.DateTimeField(verbose_name="ends")),
                (
                    "state",
                    models.CharField(
                        choices=[("open", "Open"), ("draft", "Draft"), ("final", "Final")],
                        default="open",
                        max_length=8,
                        verbose_name="state",
                    ),
                ),
                ("finalized_at", models.DateTimeField(blank=True, null=True, verbose_name="finalized")),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="periods",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "billing period",
                "verbose_name_plural": "billing periods",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "label"), name="organizations_billingperiod_label"
                    ),
                    models.UniqueConstraint(
                        fields=("organization", "id"), name="organizations_billingperiod_tenant"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("starts_at__lt", models.F("ends_at"))),
                        name="organizations_billingperiod_forward",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("label__regex", "^[0-9]{4}-(0[1-9]|1[0-2])$")),
                        name="organizations_billingperiod_label_form",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("finalized_at__isnull", False), ("state", "final")),
                            models.Q(("finalized_at__isnull", True), ("state__in", ["open", "draft"])),
                            _connector="OR",
                        ),
                        name="organizations_billingperiod_final_has_moment",
                    ),
                    django.contrib.postgres.constraints.ExclusionConstraint(
                        deferrable=django.db.models.constraints.Deferrable["DEFERRED"],
                        expressions=[
                            ("organization", "="),
                            (
                                models.Func(
                                    models.F("starts_at"),
                                    models.F("ends_at"),
                                    django.contrib.postgres.fields.ranges.RangeBoundary(),
                                    function="TSTZRANGE",
                                    output_field=django.contrib.postgres.fields.ranges.DateTimeRangeField(),
                                ),
                                "&&",
                            ),
                        ],
                        name="organizations_billingperiod_apart",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="OrganizationSlug",
            fields=[
                (
                    "slug",
                    models.CharField(max_length=63, primary_key=True, serialize=False, verbose_name="slug"),
                ),
                ("retired_at", models.DateTimeField(blank=True, null=True, verbose_name="retired")),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="slugs",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "slug",
                "verbose_name_plural": "slugs",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("retired_at__isnull", True)),
                        fields=("organization",),
                        name="organizations_organizationslug_one_current",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Project",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("slug", models.CharField(max_length=63, verbose_name="slug")),
                ("name", models.CharField(max_length=150, verbose_name="name")),
                ("archived_at", models.DateTimeField(blank=True, null=True, verbose_name="archived")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="projects",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "project",
                "verbose_name_plural": "projects",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "slug"), name="organizations_project_slug"
                    ),
                    models.UniqueConstraint(
                        fields=("organization", "id"), name="organizations_project_tenant"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("slug__regex", "^[a-z0-9](-?[a-z0-9])*$")),
                        name="organizations_project_slug_form",
                    ),
                ],
            },
        ),
    ]
