import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import apps.core.ids


class Migration(migrations.Migration):
    dependencies = [
        ("credentials", "0001_credentials"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="SigningKey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("kid", models.CharField(max_length=36, unique=True, verbose_name="key id")),
                (
                    "state",
                    models.CharField(
                        choices=[("next", "Next"), ("active", "Active"), ("retired", "Retired")],
                        max_length=8,
                        verbose_name="state",
                    ),
                ),
                ("private_key", models.TextField(editable=False)),
                ("public_jwk", models.JSONField(verbose_name="public key")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("activated_at", models.DateTimeField(blank=True, null=True, verbose_name="active since")),
                ("retired_at", models.DateTimeField(blank=True, null=True, verbose_name="retired")),
            ],
            options={
                "verbose_name": "signing key",
                "verbose_name_plural": "signing keys",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state__in", ["next", "active"])),
                        fields=("state",),
                        name="credentials_signingkey_one_of_each",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("retired_at__isnull", False), ("state", "retired")),
                            models.Q(("retired_at__isnull", True), ("state__in", ["next", "active"])),
                            _connector="OR",
                        ),
                        name="credentials_signingkey_retired_has_moment",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="TokenFamily",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("password_stamp", models.CharField(editable=False, max_length=128)),
                ("address", models.CharField(blank=True, max_length=45, verbose_name="address")),
                ("user_agent", models.CharField(blank=True, max_length=200, verbose_name="program")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("last_used_at", models.DateTimeField(verbose_name="last used")),
                ("stepped_up_at", models.DateTimeField(verbose_name="stepped up")),
                ("expires_at", models.DateTimeField(verbose_name="expires")),
                ("revoked_at", models.DateTimeField(blank=True, null=True, verbose_name="revoked")),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="token_families",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "login over REST",
                "verbose_name_plural": "logins over REST",
            },
        ),
        migrations.CreateModel(
            name="RefreshToken",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("digest", models.BinaryField(max_length=32, unique=True)),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("used_at", models.DateTimeField(blank=True, null=True, verbose_name="used")),
                (
                    "family",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="refresh_tokens",
                        to="credentials.tokenfamily",
                    ),
                ),
            ],
            options={
                "verbose_name": "refresh token",
                "verbose_name_plural": "refresh tokens",
            },
        ),
        migrations.AddIndex(
            model_name="tokenfamily",
            index=models.Index(fields=["user", "-created_at"], name="credentials_tokenfamily_user"),
        ),
    ]
