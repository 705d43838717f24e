"""What the database itself must say about tenants, read from PostgreSQL's own catalogue."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import connection, models

pytestmark = pytest.mark.django_db

# Tables whose organization_id may be empty, or that know organizations as plain ids, by design.
KNOW_PLAIN_IDS = {"audit", "outbox", "idempotency", "ledger", "notifications"}


def our_models() -> list[type[models.Model]]:
    return [model for model in apps.get_models() if model.__module__.startswith("apps.")]


def tenant_models() -> list[type[models.Model]]:
    return [
        model
        for model in our_models()
        if any(field.column == "organization_id" for field in model._meta.concrete_fields)
    ]


def foreign_keys() -> dict[str, list[tuple[tuple[str, ...], str, tuple[str, ...], bool]]]:
    """Return, by table, each foreign key as (columns, table, columns, whether it waits for the commit)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT con.conrelid::regclass::text, con.confrelid::regclass::text, con.condeferred,
                   ARRAY(SELECT attname::text FROM unnest(con.conkey) WITH ORDINALITY AS k(num, place)
                         JOIN pg_attribute ON attrelid = con.conrelid AND attnum = num ORDER BY place),
                   ARRAY(SELECT attname::text FROM unnest(con.confkey) WITH ORDINALITY AS k(num, place)
                         JOIN pg_attribute ON attrelid = con.confrelid AND attnum = num ORDER BY place)
            FROM pg_constraint AS con WHERE con.contype = 'f'
            """
        )
        found: dict = {}
        for table, to_table, deferred, columns, to_columns in cursor.fetchall():
            found.setdefault(table, []).append((tuple(columns), to_table, tuple(to_columns), deferred))
        return found


def references_by_statement() -> set[str]:
    """Return the names of the references that a statement's trigger checks instead of a foreign key."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgnewtable IS NOT NULL")
        names = {name for (name,) in cursor.fetchall()}
    return {
        name.removesuffix("_insert")
        for name in names
        if name.endswith("_insert") and name.removesuffix("insert") + "update" in names
    }


def test_every_reference_between_tenant_rows_is_composite():
    tenants = {model._meta.db_table for model in tenant_models()}
    keys, checked = foreign_keys(), references_by_statement()
    missing = []
    for model in tenant_models():
        table = model._meta.db_table
        for field in model._meta.concrete_fields:
            if (
                not field.is_relation
                or field.related_model._meta.db_table not in tenants
                or field.column == "organization_id"
            ):
                continue
            to_table = field.related_model._meta.db_table
            fits = [
                key
                for key in keys.get(table, ())
                if key[1] == to_table
                and {"organization_id", field.column} <= set(key[0])
                and "organization_id" in key[2]
            ]
            if not fits and f"{table}_{field.name}_tenant" in checked:
                continue
            if not fits:
                missing.append(f"{table}.{field.column} → {to_table}")
            elif not all(key[3] for key in fits):
                missing.append(f"{table}.{field.column} → {to_table} is not deferred")

    assert not missing


def test_every_tenant_row_names_its_organization():
    for model in tenant_models():
        column = next(field for field in model._meta.concrete_fields if field.column == "organization_id")
        assert not column.null or model._meta.app_label in KNOW_PLAIN_IDS, model
        if model._meta.app_label not in KNOW_PLAIN_IDS:
            assert isinstance(column, models.ForeignKey), f"{model} does not refer to its organization"


def test_what_money_touches_is_never_deleted_in_a_cascade():
    for model in our_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, models.ForeignKey) and model._meta.app_label != "identity":
                assert field.remote_field.on_delete in (models.PROTECT, models.DO_NOTHING, models.RESTRICT), (
                    field
                )


def test_models_order_nothing_and_override_no_save():
    for model in our_models():
        assert not model._meta.ordering, f"{model} has an implicit order"
        assert "save" not in vars(model), f"{model} overrides save()"


def test_constraints_and_indexes_are_named_after_their_table():
    for model in our_models():
        prefix = f"{model._meta.app_label}_"
        for named in [*model._meta.constraints, *model._meta.indexes]:
            assert named.name.startswith(prefix), f"{named.name} of {model}"


def test_no_float_column():
    for model in our_models():
        for field in model._meta.concrete_fields:
            assert not isinstance(field, models.FloatField), field


def test_append_only_tables_have_their_triggers():
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgrelid::regclass::text, tgtype FROM pg_trigger WHERE NOT tgisinternal")
        triggers: dict = {}
        for table, kind in cursor.fetchall():
            triggers.setdefault(table, []).append(kind)
    for table in ("audit_auditevent", "audit_seal", "ledger_transfer", "metering_usageevent"):
        kinds = triggers.get(table, [])
        assert any(kind & 8 and kind & 16 for kind in kinds), f"{table} can be edited"  # DELETE and UPDATE
        assert any(kind & 32 for kind in kinds), f"{table} can be truncated"
