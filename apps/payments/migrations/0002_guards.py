"""Tenant keys, and what stays: the money of an attempt never changes, and paid stays paid."""

from django.db import migrations

from apps.core.db import composite_foreign_key

TENANT = ["organization_id", "id"]

GUARD = """
CREATE FUNCTION payments_guard_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'Payments are never deleted.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.id, NEW.organization_id, NEW.kind, NEW.amount_minor, NEW.currency, NEW.invoice_id)
        IS DISTINCT FROM (OLD.id, OLD.organization_id, OLD.kind, OLD.amount_minor, OLD.currency, OLD.invoice_id) THEN
        RAISE EXCEPTION 'What payment % is for never changes.', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state = 'succeeded' AND (NEW.state <> 'succeeded' OR NEW.intent_id IS DISTINCT FROM OLD.intent_id) THEN
        RAISE EXCEPTION 'Payment % is paid, and stays so.', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER payments_payment_stays BEFORE UPDATE OR DELETE ON payments_payment
    FOR EACH ROW EXECUTE FUNCTION payments_guard_payment();

CREATE FUNCTION payments_guard_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'Refunds are never deleted.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.id, NEW.organization_id, NEW.payment_id, NEW.amount_minor, NEW.currency, NEW.destination)
        IS DISTINCT FROM
        (OLD.id, OLD.organization_id, OLD.payment_id, OLD.amount_minor, OLD.currency, OLD.destination) THEN
        RAISE EXCEPTION 'What refund % gives back never changes.', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state IN ('failed', 'rejected') AND NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'Refund % is %, and stays so.', OLD.id, OLD.state USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER payments_refund_stays BEFORE UPDATE OR DELETE ON payments_refund
    FOR EACH ROW EXECUTE FUNCTION payments_guard_refund();

CREATE FUNCTION payments_guard_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'Events of Stripe are never deleted.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.id, NEW.body, NEW.event_type, NEW.object_id) IS DISTINCT FROM (OLD.id, OLD.body, OLD.event_type, OLD.object_id) THEN
        RAISE EXCEPTION 'Event % stays as it came.', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER payments_stripeevent_stays BEFORE UPDATE OR DELETE ON payments_stripeevent
    FOR EACH ROW EXECUTE FUNCTION payments_guard_event();
"""
UNGUARD = """
DROP FUNCTION payments_guard_payment() CASCADE;
DROP FUNCTION payments_guard_refund() CASCADE;
DROP FUNCTION payments_guard_event() CASCADE;
"""


def tenant_key(table: str, column: str, to_table: str, name: str) -> object:
    return composite_foreign_key(table, ["organization_id", column], to_table, TENANT, name)


class Migration(migrations.Migration):
    dependencies = [("payments", "0001_payments")]

    operations = [
        migrations.RunSQL(GUARD, UNGUARD),
        tenant_key("payments_payment", "invoice_id", "invoices_invoice", "payments_payment_invoice_tenant"),
        tenant_key(
            "payments_payment", "method_id", "payments_paymentmethod", "payments_payment_method_tenant"
        ),
        tenant_key("payments_payment", "lot_id", "billing_creditlot", "payments_payment_lot_tenant"),
        tenant_key("payments_refund", "payment_id", "payments_payment", "payments_refund_payment_tenant"),
        tenant_key("payments_dispute", "payment_id", "payments_payment", "payments_dispute_payment_tenant"),
        tenant_key(
            "payments_collection", "invoice_id", "invoices_invoice", "payments_collection_invoice_tenant"
        ),
    ]
