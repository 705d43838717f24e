from django.db import migrations

# What was written before there were chains.
WAITING = """
INSERT INTO audit_waitingevent (event_id, chain_id)
SELECT id, coalesce(organization_id, '00000000-0000-0000-0000-000000000000') FROM audit_auditevent
ON CONFLICT (event_id) DO NOTHING;
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0002_seals")]

    operations = [migrations.RunSQL(WAITING, migrations.RunSQL.noop)]
