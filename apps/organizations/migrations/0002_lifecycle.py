import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import apps.core.ids
from apps.core.db import composite_foreign_key


class Migration(migrations.Migration):
    dependencies = [
        ("organizations", "0001_organizations"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="OwnershipOffer",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("expires_at", models.DateTimeField(verbose_name="expires")),
            ],
            options={
                "verbose_name": "offer of ownership",
                "verbose_name_plural": "offers of ownership",
            },
        ),
        migrations.AddField(
            model_name="organization",
            name="deleted_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="deleted"),
        ),
        migrations.AddField(
            model_name="organization",
            name="mfa_grace_ends_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="second factor needed from"),
        ),
        migrations.AddConstraint(
            model_name="organization",
            constraint=models.CheckConstraint(
                condition=models.Q(("deleted_at__isnull", True), ("status", "deleted"), _connector="OR"),
                name="organizations_organization_deleted_has_status",
            ),
        ),
        migrations.AddField(
            model_name="ownershipoffer",
            name="member",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="organizations.membership",
                verbose_name="to",
            ),
        ),
        migrations.AddField(
            model_name="ownershipoffer",
            name="offered_by",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
                verbose_name="by",
            ),
        ),
        migrations.AddField(
            model_name="ownershipoffer",
            name="organization",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="organizations.organization",
                verbose_name="organization",
            ),
        ),
        migrations.AddConstraint(
            model_name="ownershipoffer",
            constraint=models.UniqueConstraint(
                fields=("organization",), name="organizations_ownershipoffer_one"
            ),
        ),
        migrations.AddConstraint(
            model_name="ownershipoffer",
            constraint=models.CheckConstraint(
                condition=models.Q(("created_at__lt", models.F("expires_at"))),
                name="organizations_ownershipoffer_forward",
            ),
        ),
        composite_foreign_key(
            "organizations_ownershipoffer",
            ["organization_id", "member_id"],
            "organizations_membership",
            ["organization_id", "id"],
            "organizations_ownershipoffer_member",
        ),
    ]
