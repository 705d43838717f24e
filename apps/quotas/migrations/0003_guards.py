"""Every organization's plan exists, and an override names a request of its own organization."""

from django.db import migrations

from apps.core.db import composite_foreign_key


class Migration(migrations.Migration):
    dependencies = [("quotas", "0002_seeds"), ("organizations", "0003_invites")]

    operations = [
        composite_foreign_key(
            "quotas_limitoverride",
            ["organization_id", "request_id"],
            "quotas_quotarequest",
            ["organization_id", "id"],
            "quotas_limitoverride_request",
        ),
        # Organizations know their plan by its code alone: they stand below this app.
        composite_foreign_key(
            "organizations_organization", ["plan"], "quotas_plan", ["code"], "quotas_organization_plan"
        ),
    ]
