"""Final documents and locked entries say what they said when they were made, as far as it is known.

A document has the slug of its moment, an entry that of its month's lock, with the accounts as they are called today.
"""

import json
from typing import Any

from django.conf import settings
from django.db import migrations

SLUG_AT = """(
    SELECT slug FROM organizations_organizationslug known
    WHERE known.organization_id = kept.organization_id AND (known.retired_at IS NULL OR known.retired_at > {moment})
    ORDER BY known.retired_at NULLS LAST, known.slug LIMIT 1
)"""
DOCUMENTS = f"""
    UPDATE invoices_invoice kept SET organization_slug = {SLUG_AT.format(moment="kept.finalized_at")}
    WHERE kept.number IS NOT NULL AND kept.organization_slug = ''
"""  # noqa: S608  Only constants are put in.
ENTRIES = f"""
    UPDATE invoices_journalentry kept SET organization_slug = {SLUG_AT.format(moment="month.locked_at")},
        lines = coalesce((
            SELECT jsonb_agg(line || jsonb_build_object(
                'debit_code', coalesce(%(codes)s::jsonb ->> (line ->> 'debit'), line ->> 'debit'),
                'credit_code', coalesce(%(codes)s::jsonb ->> (line ->> 'credit'), line ->> 'credit')
            ) ORDER BY place)
            FROM jsonb_array_elements(kept.lines) WITH ORDINALITY AS listed (line, place)
        ), '[]')
    FROM invoices_journalmonth month
    WHERE month.id = kept.month_id AND kept.organization_slug = ''
"""  # noqa: S608  Only constants are put in.
GUARDED = (
    ("invoices_invoice", "invoices_invoice_stays", DOCUMENTS),
    ("invoices_journalentry", "invoices_journalentry_stays", ENTRIES),
)


def keep(_apps: Any, schema_editor: Any) -> None:
    """Write it past the triggers that let nothing change; the table is locked until they are back."""
    with schema_editor.connection.cursor() as cursor:
        for table, trigger, update in GUARDED:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
            cursor.execute(update, {"codes": json.dumps(settings.JOURNAL_ACCOUNTS)})
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER {trigger}")


class Migration(migrations.Migration):
    dependencies = [
        ("invoices", "0011_printed_slugs"),
        ("organizations", "0004_billing_profiles"),
    ]

    operations = [migrations.RunPython(keep, migrations.RunPython.noop)]
