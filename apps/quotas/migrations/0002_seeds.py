"""The plans that every installation starts with; the operator may change their limits and add others."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

QUOTAS = (
    "requests_per_minute",
    "request_burst",
    "writes_per_minute",
    "gpu_hours_per_month",
    "data_gb_per_month",
    "concurrent_gpus",
    "members",
    "api_keys",
    "projects",
)
# None is no limit. Where limits are negotiated they start as those of enterprise.
PLANS = [
    ("free", "Free", "To try it out.", False, (100, 50, 30, 10, 5, 8, 10, 20, 10)),
    (
        "professional",
        "Professional",
        "For teams with regular work.",
        False,
        (1_000, 500, 300, 500, 50, 64, 100, 200, 100),
    ),
    (
        "enterprise",
        "Enterprise",
        "For companies with fleets.",
        False,
        (10_000, 5_000, 3_000, None, 500, 1_024, None, None, None),
    ),
    (
        "sovereign",
        "Sovereign",
        "For the public sector, with limits of your own.",
        True,
        (10_000, 5_000, 3_000, None, 500, 1_024, None, None, None),
    ),
    (
        "classified",
        "Classified",
        "On dedicated machines, with limits of your own.",
        True,
        (10_000, 5_000, 3_000, None, 500, 1_024, None, None, None),
    ),
]


def add_plans(apps: StateApps, _schema_editor: BaseDatabaseSchemaEditor) -> None:
    plans, limits = apps.get_model("quotas", "Plan"), apps.get_model("quotas", "PlanLimit")
    for place, (code, name, description, is_negotiated, values) in enumerate(PLANS, start=1):
        plan = plans.objects.create(
            code=code,
            name=name,
            description=description,
            position=place * 10,
            is_negotiated=is_negotiated,
        )
        for quota, value in zip(QUOTAS, values, strict=True):
            limits.objects.create(plan=plan, quota=quota, value=value)


class Migration(migrations.Migration):
    dependencies = [("quotas", "0001_plans")]

    # Going back keeps the plans: the tables go with them.
    operations = [migrations.RunPython(add_plans, migrations.RunPython.noop)]
