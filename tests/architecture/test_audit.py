"""Every service that changes something says so in the audit log, or stands here with the reason why not."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.conf import settings

APPS = Path(settings.ROOT) / "apps"
WRITES = {
    "save", "create", "update", "delete", "bulk_create", "bulk_update", "get_or_create", "update_or_create",
}  # fmt: skip
# What writes besides the methods of models: mappings and hashes have the same names.
NOT_ROWS = {"hashlib", "hmac", "cursor", "os"}

# Why a service that writes leaves no row, and which ones.
REASONS: dict[str, set[str]] = {
    "The audit log itself, and what jobs, mails and requests leave behind.": {
        "audit.record",
        "audit.seal_waiting",
        "credentials.authenticate_secret",
        "idempotency.finish_attempt",
        "idempotency.purge",
        "idempotency.store",
        "idempotency.store_attempt",
        "identity.mail_password_reset",
        "identity.mail_sign_up",
        "limits.forgive",
        "limits.guess",
        "limits.purge_guesses",
        "notifications.queue_mail",
        "notifications.send_mail",
        "organizations.mail_invite",
        "outbox.publish",
        "payments.queue_abandoned",
    },
    "A part of a change: whoever calls it records the whole.": {
        "billing.bill_receivable",
        "billing.give_credit",
        "billing.insert_burns",
        "billing.open_lot",
        "billing.put_unbilled_receipts",
        "billing.reopen_keys",
        "billing.settle_receivable",
        "billing.take",
        "billing.take_unbilled_receipts",
        "billing.unbill_receivable",
        "billing.write_hours",
        "invoices.allocate_receipt",
        "invoices.next_number",
        "invoices.number_document",
        "invoices.write_lines",
        "ledger.open_book",
        "ledger.open_lot_account",
        "ledger.post_transfers",
        "ledger.reverse_transfer",
        "notifications.forget_recipient",
        "organizations.mark_period",
        "organizations.set_billing_state",
        "payments.customer_of",
        "payments.follow",
        "payments.lease",
        "payments.open_card_setup",
        "pricing.ensure_catalog",
    },
    "Metering and charging: the transfers and hours are the record (DESIGN, section 3).": {
        "billing.charge_organization",
        "billing.expire_lots",
        "billing.settle_budgets",
        "billing.settle_holds",
        "metering.advance_idle",
        "metering.meter_organization",
        "organizations.ensure_periods",
    },
    "A look that is taken back before anybody else could see it.": {"organizations.end_period"},
    "Kept from outside: the stored answer is the record, and what follows from it is audited where it is done.": {
        "organizations.record_vat_check",
        "payments.collect_due",
        "payments.fetch_missing_events",
        "payments.process_events",
        "payments.receive",
        "payments.reconcile",
        "payments.take_note",
    },
    "Made again from what is there whenever it is missing.": {
        "identity.device_of",
        "identity.verifying_device",
        "invoices.file_of",
        "invoices.make_files",
    },
    "A wish of somebody unproven; it becomes a change, and is audited, with its confirmation.": {
        "identity.begin_totp",
        "identity.forget_old_requests",
        "identity.request_password_reset",
        "identity.request_sign_up",
    },
}
UNAUDITED = {name for names in REASONS.values() for name in names}


@dataclass
class Function:
    """What one function of a service does by itself, and whom it calls."""

    writes: bool = False
    audits: bool = False
    calls: set[str] = field(default_factory=set)


def functions_of(app: Path) -> dict[str, Function]:
    """Return an app's service functions by name; those of a package are one namespace."""
    paths = [*app.glob("services.py"), *app.glob("services/*.py")]
    found: dict[str, Function] = {}
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found[known_as(node.name, path)] = read(node, path)
    return found


def known_as(name: str, path: Path) -> str:
    """Return a function's name in its app: a private one is another in each file."""
    return f"{path.stem}.{name}" if name.startswith("_") else name


def read(node: ast.FunctionDef, path: Path) -> Function:
    read_one = Function()
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Call):
            continue
        called = ast.unparse(inner.func)
        read_one.audits |= called == "audit.record"
        read_one.writes |= called == "binary_copy.send"
        if isinstance(inner.func, ast.Attribute):
            owner = called.split(".", 1)[0]
            read_one.writes |= inner.func.attr in WRITES and owner not in NOT_ROWS
        read_one.calls.add(known_as(called.rsplit(".", 1)[-1], path))
    return read_one


def reaches(functions: dict[str, Function], name: str, what: str) -> bool:
    """Return whether a function, or any of the same app that it calls, does something."""
    seen, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current in seen or current not in functions:
            continue
        seen.add(current)
        if getattr(functions[current], what):
            return True
        waiting += functions[current].calls
    return False


def unaudited() -> set[str]:
    found = set()
    for app in sorted(path for path in APPS.iterdir() if path.is_dir()):
        functions = functions_of(app)
        for name in functions:
            if "._" in name:
                continue
            if reaches(functions, name, "writes") and not reaches(functions, name, "audits"):
                found.add(f"{app.name}.{name}")
    return found


def test_every_service_that_writes_leaves_a_trace():
    assert unaudited() - UNAUDITED == set(), "call audit.record with the diff, or say here why not"


def test_no_excuse_outlives_its_service():
    assert UNAUDITED - unaudited() == set()


@pytest.mark.parametrize("source", ["Thing.objects.create(x=1)", "thing.save()"])
def test_the_walk_finds_what_it_looks_for(tmp_path, source):
    body = f"def silent():\n    _write()\ndef told():\n    _write()\n    audit.record()\ndef _write():\n    {source}"
    (tmp_path / "services.py").write_text(body, encoding="utf-8")
    functions = functions_of(tmp_path)

    assert reaches(functions, "silent", "writes")
    assert not reaches(functions, "silent", "audits")
    assert reaches(functions, "told", "audits")
