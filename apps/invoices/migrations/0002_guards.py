"""Tenant keys, and documents that stay: a final invoice changes only its state, its lines not at all."""

from django.db import migrations

from apps.core.db import append_only, composite_foreign_key

TENANT = ["organization_id", "id"]

GUARD_INVOICE = """
CREATE FUNCTION invoices_guard_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unchanged invoices_invoice;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'draft' THEN
            RAISE EXCEPTION 'An invoice begins as a draft.' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'Invoices are never deleted; a draft becomes void.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.organization_id, NEW.period_id, NEW.id) IS DISTINCT FROM (OLD.organization_id, OLD.period_id, OLD.id) THEN
        RAISE EXCEPTION 'An invoice stays with its organization and period.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state = 'draft' THEN
        RETURN NEW;
    END IF;
    unchanged := NEW;
    unchanged.state := OLD.state;
    IF unchanged IS DISTINCT FROM OLD THEN
        RAISE EXCEPTION 'Invoice % is final; only its state changes.', OLD.number
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
        ('open', 'paid'), ('open', 'uncollectible'), ('open', 'cancelled'), ('uncollectible', 'paid'),
        ('uncollectible', 'open'), ('paid', 'open'), ('paid', 'cancelled')
    ) THEN
        RAISE EXCEPTION 'An invoice that is % cannot become %.', OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER invoices_invoice_stays BEFORE INSERT OR UPDATE OR DELETE ON invoices_invoice
    FOR EACH ROW EXECUTE FUNCTION invoices_guard_invoice();
CREATE TRIGGER invoices_invoice_table_stays BEFORE TRUNCATE ON invoices_invoice
    FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();
"""

GUARD_LINE = """
CREATE FUNCTION invoices_guard_line() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    holder uuid := CASE WHEN TG_OP = 'INSERT' THEN NEW.invoice_id ELSE OLD.invoice_id END;
BEGIN
    IF TG_OP = 'UPDATE' OR EXISTS (SELECT FROM invoices_invoice WHERE id = holder AND state <> 'draft') THEN
        RAISE EXCEPTION 'Lines are written with their draft and stay; % is refused.', TG_OP
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN CASE WHEN TG_OP = 'INSERT' THEN NEW ELSE OLD END;
END
$$;
CREATE TRIGGER invoices_invoiceline_stays BEFORE INSERT OR UPDATE OR DELETE ON invoices_invoiceline
    FOR EACH ROW EXECUTE FUNCTION invoices_guard_line();
CREATE TRIGGER invoices_invoiceline_table_stays BEFORE TRUNCATE ON invoices_invoiceline
    FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("invoices", "0001_invoices"), ("billing", "0002_guards")]

    operations = [
        composite_foreign_key(
            "invoices_invoice",
            ["organization_id", "period_id"],
            "organizations_billingperiod",
            TENANT,
            "invoices_invoice_period",
        ),
        composite_foreign_key(
            "invoices_invoiceline",
            ["organization_id", "invoice_id"],
            "invoices_invoice",
            TENANT,
            "invoices_invoiceline_invoice",
        ),
        composite_foreign_key(
            "invoices_invoiceline",
            ["organization_id", "key_id"],
            "billing_chargekey",
            TENANT,
            "invoices_invoiceline_charge_key",
        ),
        composite_foreign_key(
            "invoices_invoiceline",
            ["organization_id", "corrects_id"],
            "invoices_invoiceline",
            TENANT,
            "invoices_invoiceline_corrects",
        ),
        composite_foreign_key(
            "invoices_invoicepayment",
            ["organization_id", "invoice_id"],
            "invoices_invoice",
            TENANT,
            "invoices_invoicepayment_invoice",
        ),
        composite_foreign_key(
            "invoices_periodclose",
            ["organization_id", "period_id"],
            "organizations_billingperiod",
            TENANT,
            "invoices_periodclose_period",
        ),
        composite_foreign_key(
            "invoices_periodclose",
            ["organization_id", "invoice_id"],
            "invoices_invoice",
            TENANT,
            "invoices_periodclose_invoice",
        ),
        append_only("invoices_invoicepayment"),
        append_only("invoices_periodclose"),
        migrations.RunSQL(
            GUARD_INVOICE,
            "DROP TRIGGER invoices_invoice_stays ON invoices_invoice;"
            "DROP TRIGGER invoices_invoice_table_stays ON invoices_invoice; DROP FUNCTION invoices_guard_invoice();",
        ),
        migrations.RunSQL(
            GUARD_LINE,
            "DROP TRIGGER invoices_invoiceline_stays ON invoices_invoiceline;"
            "DROP TRIGGER invoices_invoiceline_table_stays ON invoices_invoiceline;"
            "DROP FUNCTION invoices_guard_line();",
        ),
    ]
