#!/usr/bin/env python
"""Django's commands; without DATABASE_URL they bring up the embedded services and the schema first."""

import os
import sys

# Commands that touch no database. Every other one gets running services and an up-to-date schema.
OFFLINE = {
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemessages",
    "makemigrations",
    "settings_reference",
    "spectacular",
    "version",
}
# Commands about migrations see the schema as it is.
ABOUT_MIGRATIONS = {"migrate", "showmigrations", "sqlmigrate"}


def main(arguments: list[str]) -> None:
    """Run one command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    command = arguments[1] if len(arguments) > 1 else "help"
    asks_for_help = command.startswith("-") or bool({"-h", "--help"} & set(arguments))
    if not os.environ.get("DATABASE_URL") and command not in OFFLINE and not asks_for_help:
        _bring_up_services()
        if command not in ABOUT_MIGRATIONS:
            _bring_schema_up_to_date()

    from django.core.management import execute_from_command_line  # noqa: PLC0415  After the checks above.

    execute_from_command_line(arguments)


def _bring_up_services() -> None:
    from config import embedded  # noqa: PLC0415  Production never needs them.

    try:
        embedded.ensure_running()
    except embedded.StartError as error:
        sys.exit(str(error))


def _bring_schema_up_to_date() -> None:
    import django  # noqa: PLC0415  The settings read where the services answer.
    from django.core.management import call_command  # noqa: PLC0415  As above.
    from django.db import connection  # noqa: PLC0415  As above.
    from django.db.migrations.executor import MigrationExecutor  # noqa: PLC0415  As above.

    from config import embedded  # noqa: PLC0415  As above.

    def is_behind() -> bool:
        executor = MigrationExecutor(connection)
        return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))

    django.setup()
    if is_behind():
        with embedded.locked("schema"):
            if is_behind():
                call_command("migrate", verbosity=0, interactive=False)


if __name__ == "__main__":
    if sys.version_info < (3, 12):  # noqa: UP036  The reader's own python3 may be older.
        sys.exit(
            "Countinghouse needs Python 3.12 or newer: run `make setup`, then `.venv/bin/python manage.py …`."
        )
    try:
        main(sys.argv)
    except ModuleNotFoundError as error:
        # A missing package of ours is a bug and deserves its traceback.
        if error.name and error.name.split(".")[0] in ("apps", "config"):
            raise
        sys.exit(
            f"The package {error.name} is missing: run `make setup`, then `.venv/bin/python manage.py …`."
        )
