"""What was given to bookkeeping stays: entries are only released, months only unlocked, each once."""

from django.db import migrations

GUARDS = """
CREATE FUNCTION invoices_guard_journal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF to_jsonb(NEW) - ARRAY['is_released', 'unlocked_at', 'unlocked_by', 'reason']
            = to_jsonb(OLD) - ARRAY['is_released', 'unlocked_at', 'unlocked_by', 'reason']
            AND to_jsonb(OLD) ->> 'is_released' IS DISTINCT FROM 'true'
            AND to_jsonb(OLD) ->> 'unlocked_at' IS NULL THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'What bookkeeping got stays; % of % is refused.', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER invoices_journalentry_stays BEFORE UPDATE OR DELETE ON invoices_journalentry
    FOR EACH ROW EXECUTE FUNCTION invoices_guard_journal();
CREATE TRIGGER invoices_journalentry_table_stays BEFORE TRUNCATE ON invoices_journalentry
    FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();
CREATE TRIGGER invoices_journalmonth_stays BEFORE UPDATE OR DELETE ON invoices_journalmonth
    FOR EACH ROW EXECUTE FUNCTION invoices_guard_journal();
CREATE TRIGGER invoices_journalmonth_table_stays BEFORE TRUNCATE ON invoices_journalmonth
    FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();
"""
UNGUARDED = """
DROP TRIGGER invoices_journalentry_stays ON invoices_journalentry;
DROP TRIGGER invoices_journalentry_table_stays ON invoices_journalentry;
DROP TRIGGER invoices_journalmonth_stays ON invoices_journalmonth;
DROP TRIGGER invoices_journalmonth_table_stays ON invoices_journalmonth;
DROP FUNCTION invoices_guard_journal();
"""


class Migration(migrations.Migration):
    dependencies = [("invoices", "0008_journal")]

    operations = [migrations.RunSQL(GUARDS, UNGUARDED)]
