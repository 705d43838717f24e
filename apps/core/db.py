"""Migration operations for rules that PostgreSQL keeps and Django cannot express."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.migrations import RunSQL

# Replaced, never dropped: every table that is append-only shares it, whichever migration came first.
_REFUSE_CHANGE = """
CREATE OR REPLACE FUNCTION countinghouse_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Rows of % are never changed or deleted; % is refused.', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;
"""


def composite_foreign_key(
    table: str, columns: Sequence[str], to_table: str, to_columns: Sequence[str], name: str
) -> RunSQL:
    """Return the operation that makes `columns` of a table refer to unique `to_columns` of another.

    Used as (organization_id, x_id) → (organization_id, id): no row can point at another tenant's. Checked at
    commit; a NULL in any of the columns is not checked. The model's ForeignKey has `db_constraint=False`.
    """
    here = ", ".join(f'"{column}"' for column in columns)
    there = ", ".join(f'"{column}"' for column in to_columns)
    return RunSQL(
        f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" FOREIGN KEY ({here}) '
        f'REFERENCES "{to_table}" ({there}) DEFERRABLE INITIALLY DEFERRED',
        f'ALTER TABLE "{table}" DROP CONSTRAINT "{name}"',
    )


def backwards(operation: RunSQL) -> RunSQL:
    """Return the operation that undoes another one, and whose own reverse does it again."""
    assert operation.reverse_sql is not None, "only what can be undone has a way back"
    return RunSQL(operation.reverse_sql, operation.sql)


def append_only(table: str) -> RunSQL:
    """Return the operation after which PostgreSQL refuses UPDATE, DELETE and TRUNCATE of a table.

    The refusal has SQLSTATE 23001 (restrict_violation), which Django raises as IntegrityError.
    """
    return RunSQL(
        _REFUSE_CHANGE + f'CREATE TRIGGER "{table}_rows_stay" BEFORE UPDATE OR DELETE ON "{table}" '
        "FOR EACH ROW EXECUTE FUNCTION countinghouse_refuse_change();"
        f'CREATE TRIGGER "{table}_table_stays" BEFORE TRUNCATE ON "{table}" '
        "FOR EACH STATEMENT EXECUTE FUNCTION countinghouse_refuse_change();",
        f'DROP TRIGGER "{table}_rows_stay" ON "{table}"; DROP TRIGGER "{table}_table_stays" ON "{table}";',
    )


def whole_hour(table: str, column: str) -> RunSQL:
    """Return the operation after which a column holds whole UTC hours or NULL, nothing between."""
    name = f"{table}_{column}_whole_hour"
    return RunSQL(
        f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" '
        # An infinite moment has no remainder, so it is refused as well.
        f'CHECK (mod(extract(epoch FROM "{column}"), 3600) = 0)',
        f'ALTER TABLE "{table}" DROP CONSTRAINT "{name}"',
    )


def composite_reference_by_statement(
    table: str, column: str, to_table: str, name: str, *, lock: bool = True
) -> RunSQL:
    """Return the operation that makes (organization_id, `column`) refer to (organization_id, id) of another table.

    Refuses what `composite_foreign_key` does, with the same SQLSTATE, but checks all rows of a statement at once when
    it ends instead of queueing a check for each: for tables that rows stream into. Rows of the other table cannot be
    deleted or renumbered while one here refers to them.

    lock: against their deletion at the same time; not needed where rows are never deleted at all.
    """
    locked = f"""
    PERFORM FROM "{to_table}" WHERE id IN (SELECT added."{column}" FROM added) ORDER BY id FOR KEY SHARE;"""  # noqa: S608  Names from migrations.
    renumbered = "(OLD.organization_id, OLD.id) IS DISTINCT FROM (NEW.organization_id, NEW.id)"
    return RunSQL(
        f"""
CREATE FUNCTION "{name}"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN{locked if lock else ""}
    IF EXISTS (SELECT FROM added WHERE added."{column}" IS NOT NULL AND NOT EXISTS (
        SELECT FROM "{to_table}" known
         WHERE known.organization_id = added.organization_id AND known.id = added."{column}")) THEN
        RAISE EXCEPTION 'A row of "{table}" violates "{name}".'
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = '{name}', TABLE = '{table}';
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION "{name}_kept"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM "{table}" WHERE organization_id = OLD.organization_id AND "{column}" = OLD.id) THEN
        RAISE EXCEPTION 'A row of "{to_table}" is referred to: "{name}".'
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = '{name}', TABLE = '{table}';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER "{name}_insert" AFTER INSERT ON "{table}" REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION "{name}"();
CREATE TRIGGER "{name}_update" AFTER UPDATE ON "{table}" REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION "{name}"();
CREATE TRIGGER "{name}_deleted" AFTER DELETE ON "{to_table}"
    FOR EACH ROW EXECUTE FUNCTION "{name}_kept"();
CREATE TRIGGER "{name}_renumbered" AFTER UPDATE ON "{to_table}"
    FOR EACH ROW WHEN ({renumbered}) EXECUTE FUNCTION "{name}_kept"();
""",  # noqa: S608  Names from migrations.
        f'DROP FUNCTION "{name}"() CASCADE; DROP FUNCTION "{name}_kept"() CASCADE;',
    )
