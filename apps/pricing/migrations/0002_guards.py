"""What Django cannot say: whole hours, well-formed tiers, SKUs that exist, and prices that stay as published."""

from django.db import migrations

from apps.core.db import whole_hour

WHOLE_HOURS = [
    ("pricing_pricebookversion", "effective_from"),
    ("pricing_pricebookversion", "effective_to"),
    ("pricing_bookassignment", "effective_from"),
    ("pricing_bookassignment", "effective_to"),
]


def code_exists(column: str, to_table: str) -> migrations.RunSQL:
    # `*` matches any code and refers to none.
    name = f"pricing_price_{column}_exists"
    return migrations.RunSQL(
        f"ALTER TABLE pricing_price ADD COLUMN {column}_code varchar(100) "
        f"GENERATED ALWAYS AS (NULLIF({column}, '*')) STORED;"
        f"ALTER TABLE pricing_price ADD CONSTRAINT {name} FOREIGN KEY ({column}_code) REFERENCES {to_table} (code)",
        f"ALTER TABLE pricing_price DROP CONSTRAINT {name}; ALTER TABLE pricing_price DROP COLUMN {column}_code",
    )


TIERS = r"""
CREATE FUNCTION pricing_tiers_are_sound(tiers jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    -- numeric(20,10) and numeric(38,6), not negative, as strings.
    price_form CONSTANT text := '^[0-9]{1,10}(\.[0-9]{1,10})?$';
    bound_form CONSTANT text := '^[0-9]{1,32}(\.[0-9]{1,6})?$';
    tier jsonb;
    below numeric := 0;
    is_open boolean := false;
BEGIN
    IF tiers IS NULL THEN
        RETURN true;
    END IF;
    IF jsonb_typeof(tiers) <> 'array' THEN
        RETURN false;
    END IF;
    FOR tier IN SELECT value FROM jsonb_array_elements(tiers) LOOP
        IF is_open OR jsonb_typeof(tier) <> 'object' OR NOT tier ?& ARRAY['up_to', 'unit_price', 'flat_fee']
            OR coalesce(tier ->> 'unit_price', '') !~ price_form OR coalesce(tier ->> 'flat_fee', '') !~ price_form
        THEN
            RETURN false;
        END IF;
        IF jsonb_typeof(tier -> 'up_to') = 'null' THEN
            is_open := true;
        ELSIF (tier ->> 'up_to') !~ bound_form OR (tier ->> 'up_to')::numeric <= below THEN
            RETURN false;
        ELSE
            below := (tier ->> 'up_to')::numeric;
        END IF;
    END LOOP;
    RETURN is_open;
END
$$;
ALTER TABLE pricing_price ADD CONSTRAINT pricing_price_tiers_sound CHECK (pricing_tiers_are_sound(tiers));
"""
TIERS_BACK = """
ALTER TABLE pricing_price DROP CONSTRAINT pricing_price_tiers_sound;
DROP FUNCTION pricing_tiers_are_sound(jsonb);
"""

# The lock makes a row's change and its version's publication wait for each other.
PRICES = """
CREATE FUNCTION pricing_guard_prices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    version_id_now uuid;
    state_now text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'Prices are never truncated.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'INSERT' THEN
        version_id_now := NEW.version_id;
    ELSE
        version_id_now := OLD.version_id;
    END IF;
    SELECT state INTO state_now FROM pricing_pricebookversion WHERE id = version_id_now FOR NO KEY UPDATE;
    IF TG_OP = 'UPDATE' AND NEW.version_id <> OLD.version_id THEN
        RAISE EXCEPTION 'A price never moves to another version.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP <> 'INSERT' AND state_now <> 'draft' THEN
        RAISE EXCEPTION 'Prices of a % version are never changed or deleted.', state_now
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'INSERT' AND state_now <> 'draft' AND EXISTS (
        -- Rows that meet the new one somewhere and are not more specific than it would lose usage to it.
        SELECT FROM pricing_price AS row
        WHERE row.version_id = NEW.version_id AND row.meter = NEW.meter
            AND (row.sku = NEW.sku OR '*' IN (row.sku, NEW.sku))
            AND (row.region = NEW.region OR '*' IN (row.region, NEW.region))
            AND (CASE row.sku WHEN '*' THEN 2 ELSE 0 END) + (CASE row.region WHEN '*' THEN 1 ELSE 0 END)
                >= (CASE NEW.sku WHEN '*' THEN 2 ELSE 0 END) + (CASE NEW.region WHEN '*' THEN 1 ELSE 0 END)
    ) THEN
        RAISE EXCEPTION 'A % version already has a price there.', state_now USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER pricing_price_rows_stay BEFORE INSERT OR UPDATE OR DELETE ON pricing_price
    FOR EACH ROW EXECUTE FUNCTION pricing_guard_prices();
CREATE TRIGGER pricing_price_table_stays BEFORE TRUNCATE ON pricing_price
    FOR EACH STATEMENT EXECUTE FUNCTION pricing_guard_prices();
"""
PRICES_BACK = """
DROP TRIGGER pricing_price_rows_stay ON pricing_price;
DROP TRIGGER pricing_price_table_stays ON pricing_price;
DROP FUNCTION pricing_guard_prices();
"""

VERSIONS = """
CREATE FUNCTION pricing_guard_versions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'Versions are never truncated.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        IF OLD.state <> 'draft' THEN
            RAISE EXCEPTION 'A % version is never deleted.', OLD.state USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF NEW.book_id <> OLD.book_id THEN
        RAISE EXCEPTION 'A version never moves to another book.' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state = 'draft' THEN
        IF NEW.state = 'retired' THEN
            RAISE EXCEPTION 'A draft is published before it is retired.' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF to_jsonb(NEW) - ARRAY['state', 'effective_to'] <> to_jsonb(OLD) - ARRAY['state', 'effective_to']
        OR (NEW.state <> OLD.state AND NOT (OLD.state = 'published' AND NEW.state = 'retired'))
        OR (OLD.effective_to IS NOT NULL AND NEW.effective_to IS DISTINCT FROM OLD.effective_to)
    THEN
        RAISE EXCEPTION 'A % version only ends, once, and retires.', OLD.state USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER pricing_pricebookversion_rows_stay BEFORE UPDATE OR DELETE ON pricing_pricebookversion
    FOR EACH ROW EXECUTE FUNCTION pricing_guard_versions();
CREATE TRIGGER pricing_pricebookversion_table_stays BEFORE TRUNCATE ON pricing_pricebookversion
    FOR EACH STATEMENT EXECUTE FUNCTION pricing_guard_versions();
"""
VERSIONS_BACK = """
DROP TRIGGER pricing_pricebookversion_rows_stay ON pricing_pricebookversion;
DROP TRIGGER pricing_pricebookversion_table_stays ON pricing_pricebookversion;
DROP FUNCTION pricing_guard_versions();
"""

BOOKS = """
CREATE FUNCTION pricing_guard_books() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.currency <> OLD.currency OR NEW.is_demonstration <> OLD.is_demonstration) AND EXISTS (
        SELECT FROM pricing_pricebookversion WHERE book_id = OLD.id AND state <> 'draft'
    ) THEN
        RAISE EXCEPTION 'A published book keeps its currency and its purpose.' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER pricing_pricebook_terms_stay BEFORE UPDATE ON pricing_pricebook
    FOR EACH ROW EXECUTE FUNCTION pricing_guard_books();
"""
BOOKS_BACK = """
DROP TRIGGER pricing_pricebook_terms_stay ON pricing_pricebook;
DROP FUNCTION pricing_guard_books();
"""

# Rating depends on a meter's unit, and rows refer to its code.
METERS = """
CREATE FUNCTION pricing_guard_meters() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.code <> OLD.code OR NEW.unit_seconds <> OLD.unit_seconds THEN
        RAISE EXCEPTION 'A meter keeps its code and its unit.' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER pricing_meter_unit_stays BEFORE UPDATE ON pricing_meter
    FOR EACH ROW EXECUTE FUNCTION pricing_guard_meters();
"""
METERS_BACK = """
DROP TRIGGER pricing_meter_unit_stays ON pricing_meter;
DROP FUNCTION pricing_guard_meters();
"""

ASSIGNMENTS = """
CREATE FUNCTION pricing_guard_assignments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' OR OLD.effective_to IS NOT NULL
        OR to_jsonb(NEW) - 'effective_to' <> to_jsonb(OLD) - 'effective_to'
    THEN
        RAISE EXCEPTION 'An assignment only ends, once; % is refused.', TG_OP USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER pricing_bookassignment_rows_stay BEFORE UPDATE OR DELETE ON pricing_bookassignment
    FOR EACH ROW EXECUTE FUNCTION pricing_guard_assignments();
CREATE TRIGGER pricing_bookassignment_table_stays BEFORE TRUNCATE ON pricing_bookassignment
    FOR EACH STATEMENT EXECUTE FUNCTION pricing_guard_assignments();
"""
ASSIGNMENTS_BACK = """
DROP TRIGGER pricing_bookassignment_rows_stay ON pricing_bookassignment;
DROP TRIGGER pricing_bookassignment_table_stays ON pricing_bookassignment;
DROP FUNCTION pricing_guard_assignments();
"""


class Migration(migrations.Migration):
    dependencies = [("pricing", "0001_price_books")]

    operations = [
        *(whole_hour(table, column) for table, column in WHOLE_HOURS),
        code_exists("sku", "pricing_sku"),
        code_exists("region", "pricing_region"),
        migrations.RunSQL(TIERS, TIERS_BACK),
        migrations.RunSQL(PRICES, PRICES_BACK),
        migrations.RunSQL(VERSIONS, VERSIONS_BACK),
        migrations.RunSQL(BOOKS, BOOKS_BACK),
        migrations.RunSQL(METERS, METERS_BACK),
        migrations.RunSQL(ASSIGNMENTS, ASSIGNMENTS_BACK),
    ]
