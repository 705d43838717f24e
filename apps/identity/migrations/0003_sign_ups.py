import django.db.models.functions.text
from django.db import migrations, models

import apps.core.ids


class Migration(migrations.Migration):
    dependencies = [
        ("identity", "0002_mfa_devices"),
    ]

    operations = [
        migrations.CreateModel(
            name="PasswordReset",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("email", models.EmailField(max_length=254, verbose_name="e-mail address")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("mailed_at", models.DateTimeField(blank=True, null=True, verbose_name="mailed")),
            ],
            options={
                "verbose_name": "password reset",
                "verbose_name_plural": "password resets",
                "indexes": [
                    models.Index(fields=["email", "mailed_at"], name="identity_passwordreset_email"),
                    models.Index(fields=["created_at"], name="identity_passwordreset_created"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("email", django.db.models.functions.text.Lower("email"))),
                        name="identity_passwordreset_email_lower",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="SignUp",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("email", models.EmailField(max_length=254, verbose_name="e-mail address")),
                ("name", models.CharField(blank=True, max_length=150, verbose_name="name")),
                ("password", models.CharField(editable=False, max_length=128)),
                ("nonce", models.BinaryField(max_length=32)),
                ("digest", models.BinaryField(max_length=32, unique=True, verbose_name="hash")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("expires_at", models.DateTimeField(verbose_name="expires")),
                ("mailed_at", models.DateTimeField(blank=True, null=True, verbose_name="mailed")),
                ("confirmed_at", models.DateTimeField(blank=True, null=True, verbose_name="confirmed")),
            ],
            options={
                "verbose_name": "sign-up",
                "verbose_name_plural": "sign-ups",
                "indexes": [
                    models.Index(fields=["email", "mailed_at"], name="identity_signup_email"),
                    models.Index(fields=["created_at"], name="identity_signup_created"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("email", django.db.models.functions.text.Lower("email"))),
                        name="identity_signup_email_lower",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("confirmed_at__isnull", True), ("password", ""), _connector="OR"),
                        name="identity_signup_confirmed_keeps_no_password",
                    ),
                ],
            },
        ),
    ]
