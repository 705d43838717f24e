"""The API against its own description: requests made from `openapi.yaml`, valid and not, as each kind of caller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as how
from hypothesis import strategies as st

from apps.core.permissions import IntegrationScope, Role
from apps.identity.models import User
from apps.organizations import services as organizations
from apps.organizations.models import Organization
from tests import build, depth
from tests.architecture.tenant import furnish
from tests.architecture.test_tenants import document
from tests.payments.conftest import sandbox, stripe  # noqa: F401  Fixtures.

pytestmark = pytest.mark.django_db
# Of the hundred or so requests that cover an operation's description, and of those drawn at random.
COVERING, DRAWN = (10_000, 20) if depth.FULL else (8, 0)
# Sent by the test itself; what is wrong with them is tried in tests of their own.
SHARED_HEADERS = {"X-Idempotency-Key", "X-Org-Slug", "X-Owner-ID"}
# Which of the tenant's things a field of a body names.
REFERENCES = {
    "project": "project",
    "member": "member_id",
    "payment": "payment_id",
    "default_organization": "slug",
    "api_key": "public_id",
    "price_book": "book_id",
}


@dataclass(kw_only=True)
class World:
    """A tenant with one of everything, those who ask for it, and what was wrong with the answers."""

    owner: User
    values: dict[str, str]
    key: str
    integration: str
    draft: str
    application: Any = field(default_factory=get_wsgi_application)
    findings: dict[str, str] = field(default_factory=dict)
    statuses: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._token, self._until = "", 0.0

    def credentials(self, who: str) -> dict[str, str]:
        """Return the headers that say who asks."""
        slug = {"X-Org-Slug": self.values["slug"]}
        if who == "key":
            return {"X-API-Key": self.key}
        if who == "integration":
            return {"Authorization": f"Bearer {self.integration}", **slug}
        now = timezone.now().timestamp()
        if now > self._until:  # A token lasts for ten minutes, a run in full for longer.
            self._token, self._until = build.tokens(self.owner).access_token, now + 300
        return {"Authorization": f"Bearer {self._token}", **slug}

    def value_of(self, name: str, path: str) -> str | None:
        """Return what a parameter of a path names here."""
        if name == "invoice_id" and "credit-notes" in path:
            name = "note_id"
        if name == "invite_id" and "/mine/" in path:
            name = "invited_id"
        return self.values.get(name)


@pytest.fixture
def world(stripe: Any) -> Iterator[World]:  # noqa: F811  The fixture.
    owner, values = furnish("lab")
    lab, elsewhere = Organization.objects.get(slug="lab"), build.organization("elsewhere")
    waiting = organizations.invite(
        actor=build.actor(elsewhere),
        organization=elsewhere,
        email=owner.email,
        role=Role.VIEWER,
        now=timezone.now(),
    )
    integration = build.integration(tuple(IntegrationScope))
    price = {"meter": "gpu_hours", "sku": "h100", "region": "*", "model": "per_unit", "unit_price": "1"}
    drafted = build.client(integration).post(
        "/api/v1/pricing/books", {"name": "Drafted", "currency": "USD", "prices": [price]}
    )
    assert drafted.status_code == 201, drafted.content
    values |= {"invited_id": str(waiting.id), "book_id": drafted.json()["id"], "number": "1", "plan": "free"}
    # The requests share the test's connection, inside its transaction, which Django would end.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield World(
        owner=owner,
        values=values | {"code": "eu"},
        key=build.api_key(lab),
        integration=integration,
        draft=drafted.headers["ETag"],
    )
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def described() -> dict[str, Any]:
    """Return `openapi.yaml` without what the test sends by itself and without lines of JSON, which it cannot write."""
    found = deepcopy(document())
    for operation in (one for methods in found["paths"].values() for one in methods.values()):
        operation["parameters"] = [
            parameter
            for parameter in operation.get("parameters", ())
            if parameter["name"] not in SHARED_HEADERS
        ]
        operation.get("requestBody", {"content": {}})["content"].pop("application/x-ndjson", None)
    return found


def test_every_operation_answers_as_it_is_described(world: World) -> None:
    """Send what covers the description; only `make test-full` draws more at random. The same requests every time."""
    import schemathesis  # Seconds, which a run of other tests need not wait for.
    from schemathesis.config import SchemathesisConfig
    from schemathesis.generation.modes import GenerationMode

    config = SchemathesisConfig.from_dict(
        {"base-url": "http://testserver", "generation": {"with-security-parameters": False}}
    )
    schema = schemathesis.openapi.from_dict(described(), config=config)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 100

    for operation in operations:
        generation = schema.config.generation_for(operation=operation, phase="coverage")
        cases = list(
            schema.iter_coverage_cases(
                operation, generation_modes=list(GenerationMode), generation_config=generation
            )
        )
        callers = cycle(_callers(operation.label))
        for case in cases[:: max(1, len(cases) // COVERING)]:
            _try(world, case, next(callers))
        for mode in GenerationMode if DRAWN else ():
            _draw(world, operation, mode, callers)

    assert "\n\n".join(f"{key}\n{what}" for key, what in world.findings.items()) == ""
    # It would find nothing either if every request were refused at the door.
    assert world.statuses >= {200, 201, 202, 204, 400, 401, 404, 409, 422}


def _callers(label: str) -> tuple[str, ...]:
    machines = ("usage/events", "pricing/books", "entitlements", "holds")
    return ("integration",) if any(name in label for name in machines) else ("owner", "key", "owner")


def _draw(world: World, operation: Any, mode: Any, callers: Iterator[str]) -> None:
    from hypothesis.errors import Unsatisfiable

    @how(
        max_examples=DRAWN,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def drawn(data: Any) -> None:
        _try(world, data.draw(operation.as_strategy(generation_mode=mode)), next(callers))

    try:
        drawn()
    except Unsatisfiable:
        assert mode.is_negative, (
            f"{operation.label} takes nothing"
        )  # Where nothing is asked nothing can be wrong.


def _try(world: World, case: Any, who: str) -> None:
    """Send one request, undo what it did, and note what was wrong with the answer."""
    from schemathesis.checks import CHECKS
    from schemathesis.core.failures import FailureGroup
    from schemathesis.core.parameters import ParameterLocation

    operation = case.operation
    if not case.meta.is_negative_at(ParameterLocation.PATH):
        for name in case.path_parameters or {}:
            case.path_parameters[name] = world.value_of(name, case.path) or case.path_parameters[name]
    if isinstance(case.body, dict) and case.meta.generation.mode.is_positive:
        for name in REFERENCES.keys() & case.body.keys():
            case.body[name] = world.values[REFERENCES[name]]
    headers = world.credentials(who) | {"X-Idempotency-Key": str(uuid4())}
    if "If-Match" in (case.headers or {}) and case.meta.generation.mode.is_positive:
        headers["If-Match"] = world.draft
    cache.clear()
    with transaction.atomic():
        answer = case.call(app=world.application, headers=headers, environ_base={"REMOTE_ADDR": "127.0.0.1"})
        if answer.status_code < 300 and case.method != "GET":
            connection.check_constraints()  # The deferred ones too, which a commit would have found.
        transaction.set_rollback(True)
    world.statuses.add(answer.status_code)
    # Permission is checked by other tests; a schema cannot say what only the database knows.
    excluded = ("ignored_auth", "unsupported_method", "positive_data_acceptance", "missing_required_header")
    if operation.path.endswith("/usage/events"):
        excluded += ("negative_data_rejection",)
        _note(world, case, answer, _of_events(case, answer))
    _note(world, case, answer, _of_every_answer(answer))
    try:
        case.validate_response(
            answer,
            headers=headers,
            transport_kwargs={"app": world.application, "headers": headers},
            excluded_checks=CHECKS.get_by_names(list(excluded)),
        )
    except FailureGroup as group:
        for failure in group.exceptions:
            _note(world, case, answer, f"{failure.title}: {failure.message}"[:400])


def _of_every_answer(answer: Any) -> str:
    """Return what is wrong with an answer whatever was asked, or ""."""
    headers = {name.lower(): values[0] for name, values in answer.headers.items()}
    if answer.status_code < 400:
        return "" if "x-correlation-id" in headers else "no correlation id"
    body = json.loads(answer.content)
    if not body["code"] or not body["message"] or body["correlation_id"] != headers["x-correlation-id"]:
        return "the error body lacks something"
    needed = {401: "www-authenticate", 405: "allow", 503: "retry-after"}.get(answer.status_code)
    return f"no {needed}" if needed and needed not in headers else ""


def _of_events(case: Any, answer: Any) -> str:
    """Return what is wrong with what became of events: one that is not as described is refused by itself."""
    if answer.status_code != 200 or case.meta.generation.mode.is_positive:
        return ""
    taken = json.loads(answer.content)["accepted"]
    return f"{taken} wrong events were taken" if taken else ""


def _note(world: World, case: Any, answer: Any, problem: str) -> None:
    if problem:
        sent = f"{case.method} {case.formatted_path} {dict(case.query or {})} {case.body!r}"[:600]
        world.findings.setdefault(
            f"{case.operation.label}: {problem}", f"{sent}\n{answer.status_code} {answer.content[:300]!r}"
        )
