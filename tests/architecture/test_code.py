"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from io import StringIO
from pathlib import Path

import pytest
import yaml
from celery import current_app
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from openapi_spec_validator import validate

ROOT = Path(settings.ROOT)
INTERFACES = {
    "api",
    "views",
    "admin",
    "tasks",
    "webhooks",
    "urls",
    "forms",
    "receivers",
    "middleware",
    "mixins",
}
WRITES = {
    "save", "create", "update", "delete", "bulk_create", "bulk_update", "get_or_create", "update_or_create",
}  # fmt: skip


def sources() -> list[Path]:
    return sorted(path for path in (ROOT / "apps").rglob("*.py") if "migrations" not in path.parts)


def is_interface(path: Path) -> bool:
    parts = path.relative_to(ROOT / "apps").with_suffix("").parts[1:]
    return bool(set(parts) & INTERFACES) or "management" in parts


def test_import_contracts_hold():
    done = subprocess.run(
        [ROOT / ".venv/bin/lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [path for path in sources() if is_interface(path)], ids=str)
def test_interfaces_write_nothing_themselves(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES
        ):
            continue
        called = ast.unparse(node.func)
        if not called.startswith("super()"):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {called}")

    assert not found, "call a service instead"


def test_every_silenced_check_has_its_reason():
    """`noqa` and `type: ignore` name the rule, and then why it does not hold here."""
    silenced = re.compile(
        r"# (?:noqa\b|type: ignore\b)(?!(?:: [A-Z0-9, ]+|\[[a-z-]+\]) +\(?(?:# +)?[A-Z`a-z])"
    )
    bare = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (*sources(), *(ROOT / "config").rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if silenced.search(line)
    ]

    assert not bare


def test_every_job_that_is_queued_exists():
    app_tasks = set(current_app.tasks)
    missing = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"jobs.enqueue", "enqueue"}:
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{path}: a job's name is written out"
                if name.value not in app_tasks:
                    missing.append(f"{path.relative_to(ROOT)}: {name.value}")
    beats = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    missing += [f"CELERY_BEAT_SCHEDULE: {name}" for name in beats - app_tasks]

    assert not missing


def test_every_mail_that_is_sent_has_its_three_templates():
    missing = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called not in {"notifications.queue_mail", "notifications.deliver_mail"}:
                continue
            for pattern in template_patterns(node):
                subjects = list((ROOT / "templates").glob(f"{pattern}_subject.txt"))
                missing += [] if subjects else [f"{path.relative_to(ROOT)}: {pattern}"]

    assert not missing


def test_every_mail_has_a_subject_a_text_and_html():
    for subject in (ROOT / "templates").glob("*/mail/*_subject.txt"):
        name = subject.name.removesuffix("_subject.txt")
        assert subject.with_name(f"{name}.txt").exists(), subject
        assert subject.with_name(f"{name}.html").exists(), subject


def template_patterns(call):
    """Return what a call's `template` may be, with * for the parts that are computed."""
    name = next(word.value for word in call.keywords if word.arg == "template")
    if isinstance(name, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "*" for part in name.values]
        return ["".join(parts)]
    return [name.value] if isinstance(name, ast.Constant) else []


def test_tasks_accept_what_a_newer_caller_sends():
    import inspect

    for name, task in current_app.tasks.items():
        if not task.run.__module__.startswith("apps."):
            continue
        kinds = {parameter.kind for parameter in inspect.signature(task.run).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD in kinds, f"{name} lacks **_newer"
        assert inspect.Parameter.POSITIONAL_OR_KEYWORD not in kinds, f"{name} takes positional arguments"
        assert name.split(".")[0] == task.run.__module__.split(".")[1], f"{name} is not named after its app"


def test_dotted_names_in_settings_lead_somewhere():
    from django.utils.module_loading import import_string

    names = [
        settings.ORGANIZATION_RESOLVER,
        settings.RATE_LIMIT_POLICY,
        settings.RATED_UNTIL,
        settings.RATED_OTHERWISE,
        settings.RECEIPT_ALLOCATOR,
        settings.TAX_ENGINE,
        settings.ENVIRONMENT_CLASS,
        settings.MEMBER_HAS_KEYS,
        settings.MEMBER_KEYS_SETTLER,
        settings.LIMIT_CHECK,
        settings.PERSON_ARRIVES,
        settings.PERSON_LEAVES,
        settings.PERSON_PROGRAMS_END,
        *settings.ORGANIZATION_DELETE_BLOCKERS,
        *settings.LEDGER_PROOFS,
        *settings.METRICS_COLLECTORS,
    ]
    for name in names:
        assert import_string(name), name


def test_every_app_says_what_it_is():
    for config in apps.get_app_configs():
        if config.name.startswith("apps."):
            assert config.label == config.name.removeprefix("apps.")


@pytest.mark.parametrize("command", ["settings_reference", "errors_reference"])
def test_generated_references_have_not_drifted(command):
    call_command(command, "--check")


def test_migrations_have_not_drifted(db):
    call_command("makemigrations", "--check", "--dry-run", verbosity=1)


def test_migrations_import_no_app_code_but_ids_and_operations():
    allowed = {"apps.core.ids", "apps.core.db"}
    for path in (ROOT / "apps").rglob("migrations/0*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong = [name for name in names if name.startswith("apps.") and name not in allowed]
            assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_openapi_document_is_valid_and_has_not_drifted():
    out = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)

    assert out.getvalue() == (ROOT / "openapi.yaml").read_text(), "manage.py spectacular --file openapi.yaml"
    validate(yaml.safe_load(out.getvalue()))


def test_the_openapi_document_and_its_page_are_served(client):
    answer = client.get("/api/v1/openapi.json")
    page = client.get("/api/docs")

    assert answer.json()["openapi"] == "3.1.1"
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert all(path.startswith("/api/v1/") for path in answer.json()["paths"])
    assert page.status_code == 200
    assert "<script>" not in page.text
    assert "style=" not in page.text
