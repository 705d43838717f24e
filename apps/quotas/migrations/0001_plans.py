"""Plans, their limits, what organizations have instead, and what they ask for."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import apps.core.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("organizations", "0003_invites"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Plan",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("code", models.CharField(max_length=32, unique=True, verbose_name="code")),
                ("name", models.CharField(max_length=64, verbose_name="name")),
                ("description", models.CharField(blank=True, max_length=255, verbose_name="description")),
                (
                    "position",
                    models.PositiveSmallIntegerField(
                        default=100,
                        help_text="The plan with the least stands first.",
                        verbose_name="position",
                    ),
                ),
                ("is_negotiated", models.BooleanField(default=False, verbose_name="limits are negotiated")),
                ("is_public", models.BooleanField(default=True, verbose_name="shown to everybody")),
            ],
            options={
                "verbose_name": "plan",
                "verbose_name_plural": "plans",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("code__regex", "^[a-z][a-z0-9_]*$")), name="quotas_plan_code_form"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="QuotaRequest",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "quota",
                    models.CharField(
                        choices=[
                            ("requests_per_minute", "Requests a minute"),
                            ("request_burst", "Requests at once"),
                            ("writes_per_minute", "Writes a minute"),
                            ("gpu_hours_per_month", "GPU-hours a month"),
                            ("data_gb_per_month", "Outgoing data a month, GB"),
                            ("concurrent_gpus", "GPUs at once"),
                            ("members", "Members"),
                            ("api_keys", "API keys"),
                            ("projects", "Projects"),
                        ],
                        max_length=32,
                        verbose_name="quota",
                    ),
                ),
                ("family", models.CharField(default="*", max_length=120, verbose_name="SKU family")),
                ("region", models.CharField(default="*", max_length=64, verbose_name="region")),
                ("requested", models.BigIntegerField(verbose_name="requested")),
                ("limit_then", models.BigIntegerField(verbose_name="limit at the time")),
                ("reason", models.CharField(max_length=1000, verbose_name="reason")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("submitted", "Submitted"),
                            ("approved", "Approved"),
                            ("denied", "Denied"),
                            ("withdrawn", "Withdrawn"),
                        ],
                        default="submitted",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                ("requested_by_label", models.CharField(max_length=254, verbose_name="requested by")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("decided_at", models.DateTimeField(blank=True, null=True, verbose_name="decided")),
                ("decided_by_label", models.CharField(blank=True, max_length=254, verbose_name="decided by")),
                ("granted", models.BigIntegerField(blank=True, null=True, verbose_name="granted")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="until")),
                ("message", models.CharField(blank=True, max_length=1000, verbose_name="message")),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
                (
                    "requested_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "quota request",
                "verbose_name_plural": "quota requests",
            },
        ),
        migrations.CreateModel(
            name="LimitOverride",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "quota",
                    models.CharField(
                        choices=[
                            ("requests_per_minute", "Requests a minute"),
                            ("request_burst", "Requests at once"),
                            ("writes_per_minute", "Writes a minute"),
                            ("gpu_hours_per_month", "GPU-hours a month"),
                            ("data_gb_per_month", "Outgoing data a month, GB"),
                            ("concurrent_gpus", "GPUs at once"),
                            ("members", "Members"),
                            ("api_keys", "API keys"),
                            ("projects", "Projects"),
                        ],
                        max_length=32,
                        verbose_name="quota",
                    ),
                ),
                (
                    "family",
                    models.CharField(
                        default="*",
                        help_text="Only for GPUs at once; a SKU without a family is its own.",
                        max_length=120,
                        verbose_name="SKU family",
                    ),
                ),
                ("region", models.CharField(default="*", max_length=64, verbose_name="region")),
                (
                    "value",
                    models.BigIntegerField(
                        blank=True, help_text="Empty: without a limit.", null=True, verbose_name="limit"
                    ),
                ),
                ("reason", models.CharField(max_length=1000, verbose_name="reason")),
                ("created_by_label", models.CharField(max_length=254, verbose_name="by")),
                ("created_at", models.DateTimeField(verbose_name="from")),
                (
                    "expires_at",
                    models.DateTimeField(
                        blank=True, help_text="Empty: until it is ended.", null=True, verbose_name="until"
                    ),
                ),
                ("ended_at", models.DateTimeField(blank=True, null=True, verbose_name="ended")),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="organizations.organization",
                        verbose_name="organization",
                    ),
                ),
                (
                    "request",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="overrides",
                        to="quotas.quotarequest",
                        verbose_name="request",
                    ),
                ),
            ],
            options={
                "verbose_name": "limit of an organization",
                "verbose_name_plural": "limits of organizations",
            },
        ),
        migrations.CreateModel(
            name="PlanLimit",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "quota",
                    models.CharField(
                        choices=[
                            ("requests_per_minute", "Requests a minute"),
                            ("request_burst", "Requests at once"),
                            ("writes_per_minute", "Writes a minute"),
                            ("gpu_hours_per_month", "GPU-hours a month"),
                            ("data_gb_per_month", "Outgoing data a month, GB"),
                            ("concurrent_gpus", "GPUs at once"),
                            ("members", "Members"),
                            ("api_keys", "API keys"),
                            ("projects", "Projects"),
                        ],
                        max_length=32,
                        verbose_name="quota",
                    ),
                ),
                ("family", models.CharField(default="*", max_length=120, verbose_name="SKU family")),
                ("region", models.CharField(default="*", max_length=64, verbose_name="region")),
                (
                    "value",
                    models.BigIntegerField(
                        blank=True, help_text="Empty: without a limit.", null=True, verbose_name="limit"
                    ),
                ),
                (
                    "plan",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="limits",
                        to="quotas.plan",
                        verbose_name="plan",
                    ),
                ),
            ],
            options={
                "verbose_name": "limit",
                "verbose_name_plural": "limits",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("plan", "quota", "family", "region"), name="quotas_planlimit_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "quota__in",
                                [
                                    "requests_per_minute",
                                    "request_burst",
                                    "writes_per_minute",
                                    "gpu_hours_per_month",
                                    "data_gb_per_month",
                                    "concurrent_gpus",
                                    "members",
                                    "api_keys",
                                    "projects",
                                ],
                            )
                        ),
                        name="quotas_planlimit_quota_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("family", "*"), ("region", "*")),
                            ("quota", "concurrent_gpus"),
                            _connector="OR",
                        ),
                        name="quotas_planlimit_only_gpus_by_place",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("value", None), ("value__gte", 0), _connector="OR"),
                        name="quotas_planlimit_value_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("value", None),
                            ("value__gte", 1),
                            models.Q(
                                ("quota__in", ("requests_per_minute", "request_burst", "writes_per_minute")),
                                _negated=True,
                            ),
                            _connector="OR",
                        ),
                        name="quotas_planlimit_rate_positive",
                    ),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="quotarequest",
            index=models.Index(
                fields=["organization", "-created_at", "-id"], name="quotas_quotarequest_created"
            ),
        ),
        migrations.AddConstraint(
            model_name="quotarequest",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="quotas_quotarequest_tenant"
            ),
        ),
        migrations.AddConstraint(
            model_name="quotarequest",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "submitted")),
                fields=("organization", "quota", "family", "region"),
                name="quotas_quotarequest_one_waiting",
            ),
        ),
        migrations.AddConstraint(
            model_name="quotarequest",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "quota__in",
                        [
                            "requests_per_minute",
                            "request_burst",
                            "writes_per_minute",
                            "gpu_hours_per_month",
                            "data_gb_per_month",
                            "concurrent_gpus",
                            "members",
                            "api_keys",
                            "projects",
                        ],
                    )
                ),
                name="quotas_quotarequest_quota_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="quotarequest",
            constraint=models.CheckConstraint(
                condition=models.Q(("requested__gt", models.F("limit_then"))), name="quotas_quotarequest_more"
            ),
        ),
        migrations.AddConstraint(
            model_name="quotarequest",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("decided_at", None), ("granted", None), ("state", "submitted")),
                    models.Q(
                        ("decided_at__isnull", False),
                        ("granted", None),
                        ("state__in", ["denied", "withdrawn"]),
                    ),
                    models.Q(
                        ("decided_at__isnull", False), ("granted__isnull", False), ("state", "approved")
                    ),
                    _connector="OR",
                ),
                name="quotas_quotarequest_decision_complete",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="quotas_limitoverride_tenant"
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at", None)),
                fields=("organization", "quota", "family", "region"),
                name="quotas_limitoverride_one_in_force",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("expires_at", None), ("expires_at__gt", models.F("created_at")), _connector="OR"
                ),
                name="quotas_limitoverride_forward",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "quota__in",
                        [
                            "requests_per_minute",
                            "request_burst",
                            "writes_per_minute",
                            "gpu_hours_per_month",
                            "data_gb_per_month",
                            "concurrent_gpus",
                            "members",
                            "api_keys",
                            "projects",
                        ],
                    )
                ),
                name="quotas_limitoverride_quota_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("family", "*"), ("region", "*")), ("quota", "concurrent_gpus"), _connector="OR"
                ),
                name="quotas_limitoverride_only_gpus_by_place",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(("value", None), ("value__gte", 0), _connector="OR"),
                name="quotas_limitoverride_value_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("value", None),
                    ("value__gte", 1),
                    models.Q(
                        ("quota__in", ("requests_per_minute", "request_burst", "writes_per_minute")),
                        _negated=True,
                    ),
                    _connector="OR",
                ),
                name="quotas_limitoverride_rate_positive",
            ),
        ),
    ]
