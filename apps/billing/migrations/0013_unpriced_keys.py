"""Which organizations used what has no price, found without reading every charge key."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0012_reopened_keys"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="chargekey",
            index=models.Index(
                name="billing_chargekey_unpriced",
                fields=["organization"],
                condition=models.Q(price_key_id=None),
            ),
        ),
    ]
