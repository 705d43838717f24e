"""What belongs to another tenant answers like what does not exist: ids in paths, bodies and filters, lists, exports."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from django.conf import settings

from apps.audit.models import AuditEvent
from apps.core.permissions import Permission, Role
from apps.credentials.models import ApiKey
from apps.identity.models import User
from apps.organizations.models import Membership, Organization
from tests import build
from tests.architecture.tenant import APRIL, furnish
from tests.architecture.test_pages import PAGES
from tests.architecture.test_routes import API, sample

pytestmark = pytest.mark.django_db
NOBODY = "0190c9a0-0000-7000-8000-000000000000"
ZEBRA = "zebra"

# Filters that name nothing of a tenant's own: kinds, states, moments, and the catalogue that all share.
PLAIN_FILTERS = {
    *("accelerator", "action", "actor_kind", "archived", "cursor", "created_from", "created_to", "family"),
    *("format", "from", "group_by", "hour", "hour_from", "hour_to", "interval", "is_active", "kind"),
    *("limit", "line", "meter", "occurred_from", "occurred_to", "offset", "period", "pot", "quota", "region"),
    *("revoked", "role", "scope", "sku", "sort", "state", "status", "suspended", "target_type", "to"),
    *("unpriced", "at", "ends_from", "ends_to", "issued_from", "issued_to", "plan", "currency"),
}


@pytest.fixture
def foreign() -> dict[str, str]:
    """Give another tenant one of everything; return what names each, by the names that paths and filters use."""
    return furnish(ZEBRA)[1]


@pytest.fixture
def lab() -> Organization:
    found = build.organization("lab", currency="EUR", now=APRIL)
    build.member(found, Role.OWNER, user=build.user("owner@lab.example"))
    return found


@pytest.fixture
def asking(lab: Organization) -> list[Any]:
    """Return the two who ask with everything that a customer can have: a key and an owner who proved themselves."""
    owner = User.objects.get(email="owner@lab.example")
    return [build.client(build.api_key(lab)), build.person_client(owner, X_Org_Slug="lab")]


def ids_in(route: str) -> list[str]:
    return re.findall(r"<uuid:(\w+)>", route)


def path_of(route: str, values: dict[str, str]) -> str:
    named = re.sub(r"<uuid:(\w+)>", lambda found: values.get(found[1], NOBODY), route)
    return sample(named.replace("<str:file_format>", "pdf"))


def told(answer: Any, *hidden: str) -> tuple[int, str]:
    """Return status and body without what is different each time, and without the name that was asked for."""
    body = re.sub(r'("correlation_id":\s*)"[^"]*"', r"\1", answer.content.decode())
    for one in hidden:
        body = body.replace(one, "…")
    return answer.status_code, body


def methods_of(view: Any) -> list[str]:
    return [name for name in ("get", "post", "put", "patch", "delete") if hasattr(view, name)]


def test_ids_in_paths_of_the_api_answer_like_ids_that_do_not_exist(foreign, lab, asking):
    seen, wrong = 0, []
    for route, view in API:
        named = [name for name in ids_in(route) if name != "book_id"]  # Books are the operator's.
        if not named:
            continue
        assert set(named) <= set(foreign), f"{route}: make one in `foreign`"
        for method in methods_of(view):
            for client in asking:
                answers = []
                for values in (foreign, {}):
                    path = path_of(route, values)
                    once = {"X-Idempotency-Key": str(uuid4())}
                    sent = client.generic(
                        method.upper(), path, b"{}", content_type="application/json", headers=once
                    )
                    answers.append(told(sent, *foreign.values(), NOBODY))
                assert answers[0] == answers[1], f"{method} {route}"
                if answers[0][0] not in {403, 404}:  # 403: what only people may do.
                    wrong.append(f"{method} {route}: {answers[0][0]}")
                seen += answers[0][0] == 404
    assert wrong == []
    assert seen > 40


def test_ids_in_paths_of_pages_answer_like_ids_that_do_not_exist(foreign, lab):
    browser = build.browser(User.objects.get(email="owner@lab.example"))
    seen = 0
    for route, view in PAGES:
        named = [
            name for name in ids_in(route) if name != "mail_id"
        ]  # The development mailbox is everybody's.
        if not named:
            continue
        assert set(named) <= set(foreign), f"{route}: make one in `foreign`"
        for method in methods_of(view):
            for values in (foreign, {}):
                answer = getattr(browser, method)(path_of(route, values))
                assert answer.status_code == 404, f"{method} {route}"
                assert "zebra" not in answer.text.lower()
                seen += 1
    assert seen > 30


def operations() -> list[tuple[str, list[str]]]:
    """Return the lists, exports and sums that need no id, each with its filters."""
    found = []
    for path, operation in document()["paths"].items():
        if "get" in operation and not re.search(r"{(?!slug})", path):
            names = [p["name"] for p in operation["get"].get("parameters", []) if p["in"] == "query"]
            found.append((path.replace("{slug}", "lab"), names))
    return found


@cache
def document() -> dict[str, Any]:
    text = (Path(settings.ROOT) / "openapi.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  Both are safe.


def test_filters_find_nothing_of_another_tenant(foreign, lab, asking):
    key, _owner = asking
    seen = 0
    for path, names in operations():
        for name in set(names) - PLAIN_FILTERS:
            assert name in foreign, f"{path}?{name}: say in `foreign` what it names, or that it names nothing"
            unknown = NOBODY if is_uuid(foreign[name]) else "nothing-of-this-name"
            answers = [told(key.get(path, {name: value}), value) for value in (foreign[name], unknown)]
            assert answers[0] == answers[1], f"{path}?{name}"
            assert answers[0][0] in {200, 404}, f"{path}?{name}: {answers[0]}"
            seen += 1
    assert seen > 15


def test_lists_sums_and_exports_hold_nothing_of_another_tenant(foreign, lab, asking):
    secret = {*foreign.values(), ZEBRA, "Zebra"}
    seen = 0
    for path, _names in operations():
        for client in asking:
            answer = client.get(path)
            text = told(answer)[1] if not answer.streaming else b"".join(answer.streaming_content).decode()
            assert not [one for one in secret if one in text], path
            seen += answer.status_code == 200
    assert seen > 50


BODIES = [
    ("post", "/orgs/lab/api-keys", {"name": "x", "scopes": ["usage.read"]}, "project", "project"),
    ("post", "/orgs/lab/api-keys", {"name": "x", "scopes": ["usage.read"]}, "project", "project_id"),
    ("post", "/orgs/lab/budgets", {"name": "x", "scope": "project", "amount": "1"}, "project", "project"),
    ("post", "/orgs/lab/budgets", {"name": "x", "scope": "project", "amount": "1"}, "project", "project_id"),
    ("post", "/orgs/lab/budgets", {"name": "x", "scope": "api_key", "amount": "1"}, "api_key", "public_id"),
    ("post", "/orgs/lab/budgets", {"name": "x", "scope": "api_key", "amount": "1"}, "api_key", "key_id"),
    ("post", "/orgs/lab/transfer", {}, "member", "member_id"),
    ("patch", "/api/v1/me", {}, "default_organization", "slug"),
    ("patch", "/api/v1/me", {}, "default_organization", "organization"),
    ("post", "/api/v1/billing/refunds", {"reason": "x", "amount": "1.00"}, "payment", "payment_id"),
]


def test_ids_in_bodies_answer_like_ids_that_do_not_exist(foreign, lab, asking):
    _key, owner = asking
    leaver = Membership.objects.get(user=build.member(lab, Role.DEVELOPER))
    bodies = [*BODIES, ("delete", f"/orgs/lab/members/{leaver.id}", {}, "keys", "member_id")]
    before = AuditEvent.objects.count()
    for method, path, body, field, names in bodies:
        answers = []
        for value in (foreign[names], NOBODY if is_uuid(foreign[names]) else "nothing"):
            headers = {"X-Idempotency-Key": str(uuid4())}
            answer = getattr(owner, method)(path, body | {field: value}, headers=headers)
            answers.append(told(answer, value))
        assert answers[0] == answers[1], f"{method} {path} {field}"
        assert answers[0][0] in {404, 422}, answers[0]
    assert AuditEvent.objects.count() == before

    checking = build.client(build.integration())
    for field, names in (("project", "project"), ("api_key", "public_id")):
        answers = []
        for value in (foreign[names], "nothing"):
            body = {"sku": "h100", "region": "eu", "gpus": "1", field: value}
            status, text = told(checking.post("/orgs/lab/entitlements/check", body), value)
            answers.append((status, re.sub(r"\d{4}-\d\d-\d\dT[^\"]*", "", text)))
        assert answers[0] == answers[1], field


def test_every_reference_in_a_body_is_tried():
    """Fail when an input gains a field that names a row, until it is tried above."""
    references = {
        "project",
        "api_key",
        "member",
        "payment",
        "default_organization",
        "keys",
        "invoice",
        "budget",
    }
    tried = {field for _method, _path, _body, field, _names in BODIES} | {"project", "api_key", "keys"}
    schemas = document()["components"]["schemas"]
    inputs = {name: schema for name, schema in schemas.items() if name.endswith("Request")}
    found = {
        field
        for schema in inputs.values()
        for field, spec in schema.get("properties", {}).items()
        if field in references or spec.get("format") == "uuid"
    }

    assert found
    assert found <= tried


def is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def test_a_customers_key_has_every_permission_that_a_customer_can_have(lab, asking):
    assert set(ApiKey.objects.get(organization=lab).scopes) == set(Permission)
