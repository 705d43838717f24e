"""What Django cannot say: composite keys within a book, append-only rows, balances moved by the database."""

from django.db import migrations

from apps.core.db import append_only, composite_foreign_key

MOVE_BALANCES = """
CREATE FUNCTION ledger_move_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger_account AS account
    SET balance_micros = account.balance_micros + moved.micros
    FROM (
        SELECT account_id, sum(micros)::bigint AS micros FROM (
            SELECT credit_id AS account_id, amount_micros AS micros FROM inserted
            UNION ALL
            SELECT debit_id, -amount_micros FROM inserted
        ) legs GROUP BY account_id
    ) moved
    WHERE account.id = moved.account_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER ledger_transfer_moves_balances AFTER INSERT ON ledger_transfer
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION ledger_move_balances();
"""

# The only UPDATE of an account that passes is the one above, which runs one trigger deeper.
GUARD_BALANCE = """
CREATE FUNCTION ledger_guard_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.balance_micros <> 0 THEN
            RAISE EXCEPTION 'An account opens with a balance of zero; only transfers move it.'
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND pg_trigger_depth() > 1 AND (NEW.id, NEW.organization_id, NEW.currency, NEW.kind)
        = (OLD.id, OLD.organization_id, OLD.currency, OLD.kind) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'Accounts change through transfers alone; % is refused.', TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER ledger_account_guards_balance BEFORE INSERT OR UPDATE OR DELETE ON ledger_account
    FOR EACH ROW EXECUTE FUNCTION ledger_guard_balance();
CREATE TRIGGER ledger_account_stays BEFORE TRUNCATE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("ledger", "0001_books")]

    operations = [
        composite_foreign_key(
            "ledger_account",
            ["organization_id", "currency"],
            "ledger_wallet",
            ["organization_id", "currency"],
            "ledger_account_book",
        ),
        composite_foreign_key(
            "ledger_transfer",
            ["organization_id", "currency", "debit_id"],
            "ledger_account",
            ["organization_id", "currency", "id"],
            "ledger_transfer_debit_in_book",
        ),
        composite_foreign_key(
            "ledger_transfer",
            ["organization_id", "currency", "credit_id"],
            "ledger_account",
            ["organization_id", "currency", "id"],
            "ledger_transfer_credit_in_book",
        ),
        append_only("ledger_transfer"),
        migrations.RunSQL(
            MOVE_BALANCES,
            "DROP TRIGGER ledger_transfer_moves_balances ON ledger_transfer; DROP FUNCTION ledger_move_balances();",
        ),
        migrations.RunSQL(
            GUARD_BALANCE,
            "DROP TRIGGER ledger_account_guards_balance ON ledger_account;"
            "DROP TRIGGER ledger_account_stays ON ledger_account; DROP FUNCTION ledger_guard_balance();",
        ),
    ]
