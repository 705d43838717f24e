"""Rows of one organization cannot point at another's, and burns stay as they were but for their reversals."""

from django.db import migrations

from apps.core.db import composite_foreign_key, whole_hour

TENANT = ["organization_id", "id"]

GUARD_BURN = """
CREATE FUNCTION billing_guard_burn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (NEW.id, NEW.organization_id, NEW.key_id, NEW.hour, NEW.lot_id, NEW.amount_micros,
        NEW.transfer_id) IS NOT DISTINCT FROM (OLD.id, OLD.organization_id, OLD.key_id, OLD.hour, OLD.lot_id,
        OLD.amount_micros, OLD.transfer_id) AND NEW.reversed_micros >= OLD.reversed_micros THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'A burn only ever gets reversed; % is refused.', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER billing_burn_rows_stay BEFORE UPDATE OR DELETE ON billing_burn
    FOR EACH ROW EXECUTE FUNCTION billing_guard_burn();
CREATE TRIGGER billing_burn_table_stays BEFORE TRUNCATE ON billing_burn
    FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_credit_and_charges"), ("ledger", "0002_guards")]

    operations = [
        composite_foreign_key(
            "billing_creditlot",
            ["organization_id", "currency", "account_id"],
            "ledger_account",
            ["organization_id", "currency", "id"],
            "billing_creditlot_account",
        ),
        composite_foreign_key(
            "billing_chargekey",
            ["organization_id", "period_id"],
            "organizations_billingperiod",
            TENANT,
            "billing_chargekey_period",
        ),
        composite_foreign_key(
            "billing_chargehour",
            ["organization_id", "key_id"],
            "billing_chargekey",
            TENANT,
            "billing_chargehour_key",
        ),
        composite_foreign_key(
            "billing_burn", ["organization_id", "key_id"], "billing_chargekey", TENANT, "billing_burn_key"
        ),
        composite_foreign_key(
            "billing_burn", ["organization_id", "lot_id"], "billing_creditlot", TENANT, "billing_burn_lot"
        ),
        composite_foreign_key(
            "billing_burn",
            ["organization_id", "transfer_id"],
            "ledger_transfer",
            TENANT,
            "billing_burn_transfer",
        ),
        # Usage is charged hour by hour, so a lot can only start and end with one.
        whole_hour("billing_creditlot", "effective_at"),
        whole_hour("billing_creditlot", "expires_at"),
        migrations.RunSQL(
            GUARD_BURN,
            "DROP TRIGGER billing_burn_rows_stay ON billing_burn; DROP TRIGGER billing_burn_table_stays ON billing_burn;"
            "DROP FUNCTION billing_guard_burn();",
        ),
    ]
