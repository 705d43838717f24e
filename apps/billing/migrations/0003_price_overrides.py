"""A charge names the override that it was priced by."""

import django.db.models.deletion
from django.db import migrations, models

from apps.core.db import composite_foreign_key


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_guards"),
        ("organizations", "0001_organizations"),
        ("pricing", "0004_price_overrides"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="chargekey",
            name="billing_chargekey_price_complete",
        ),
        migrations.AddField(
            model_name="chargekey",
            name="override",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="pricing.priceoverride",
            ),
        ),
        migrations.AddConstraint(
            model_name="chargekey",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("override", None), ("price", None), ("price_key_id", None)),
                    models.Q(
                        ("price_key_id__isnull", False),
                        models.Q(("price__isnull", False), ("override__isnull", False), _connector="OR"),
                    ),
                    _connector="OR",
                ),
                name="billing_chargekey_price_complete",
            ),
        ),
        composite_foreign_key(
            "billing_chargekey",
            ["organization_id", "override_id"],
            "pricing_priceoverride",
            ["organization_id", "id"],
            "billing_chargekey_override",
        ),
    ]
