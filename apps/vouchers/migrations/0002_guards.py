"""A redemption is of a code of its campaign and a lot of its organization, and is never changed."""

from django.db import migrations

from apps.core.db import append_only, composite_foreign_key


class Migration(migrations.Migration):
    dependencies = [("vouchers", "0001_campaigns"), ("billing", "0002_guards")]

    operations = [
        composite_foreign_key(
            "vouchers_redemption",
            ["campaign_id", "code_id"],
            "vouchers_vouchercode",
            ["campaign_id", "id"],
            "vouchers_redemption_code",
        ),
        composite_foreign_key(
            "vouchers_redemption",
            ["organization_id", "lot_id"],
            "billing_creditlot",
            ["organization_id", "id"],
            "vouchers_redemption_lot",
        ),
        append_only("vouchers_redemption"),
    ]
