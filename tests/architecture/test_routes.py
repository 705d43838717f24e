"""Every API route has a hand-written permission, and the answer to each kind of caller follows from it."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest
from django.db import transaction
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from apps.core.http.views import AUTHENTICATED, PUBLIC, Access, ApiView, UnknownPath
from apps.core.permissions import ROLE_PERMISSIONS, IntegrationScope, Permission, Role
from apps.credentials import services as credentials
from apps.credentials.models import ApiKey
from apps.idempotency.mixins import IdempotentMixin
from apps.identity.models import User
from apps.organizations.models import Membership, Organization, OrganizationStatus
from config import urls
from tests import build

SAMPLES = {"slug": "lab", "uuid": "0190c9a0-0000-7000-8000-000000000000", "str": "x", "int": "1", "path": "x"}


def routes(patterns: list[Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            found += routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            found.append(
                (
                    route,
                    getattr(pattern.callback, "view_class", None) or getattr(pattern.callback, "cls", None),
                )
            )
    return found


API = [(f"api/v1/{route}", view) for route, view in routes(urls.api_urlpatterns)]
METHODS = [
    (route, view, method.upper())
    for route, view in API
    for method in ("get", "post", "put", "patch", "delete")
    if hasattr(view, method)
]
IDS = [f"{method} {route}" for route, _view, method in METHODS]
# API.md names where a key of idempotency says nothing.
CHANGES = [
    row
    for row in METHODS
    if row[2] in {"PUT", "PATCH", "DELETE"} and row[0].split("/")[2] not in {"auth", "mfa", "invites"}
]
OF_ONE = [row for row in METHODS if "<slug:slug>" in row[0]]


@pytest.mark.parametrize(
    ("route", "view"), [pytest.param(route, view, id=f"{method} {route}") for route, view, method in CHANGES]
)
def test_a_change_answers_a_repetition_of_its_key(route, view):
    assert issubclass(view, IdempotentMixin), route


def sample(route: str) -> str:
    """Return a path of a route: the organization that the tests make, and ids that do not exist."""
    return "/" + re.sub(r"<(?:(\w+):)?\w+>", lambda found: SAMPLES[found[1] or "str"], route)


def rule_of(view: type[ApiView], method: str) -> Any:
    return view(request=None).rule_for(method)


def names_of(rule: Any) -> frozenset[str]:
    return (
        frozenset()
        if isinstance(rule, Access)
        else rule
        if isinstance(rule, frozenset)
        else frozenset({rule})
    )


def test_there_are_routes():
    assert len(API) > 5


@pytest.mark.parametrize(("route", "view", "method"), METHODS, ids=IDS)
def test_every_route_has_its_own_permission(route, view, method):
    assert issubclass(view, ApiView), f"{route} is no ApiView"
    owner = next(parent for parent in view.__mro__ if "permission" in vars(parent))
    assert not owner.__module__.startswith("apps.core"), f"{view} inherits its permission"
    assert isinstance(rule_of(view, method), (Permission, IntegrationScope, frozenset, Access))
    if isinstance(vars(owner)["permission"], dict):
        assert method in vars(owner)["permission"], f"{view} says nothing of {method}"
    assert not route.endswith("/")


def by_rule() -> dict[str, list[tuple[str, type[ApiView], str]]]:
    """Return every route and method by the rule that they follow, so that its callers are made once for all of it."""
    found: dict[str, list[tuple[str, type[ApiView], str]]] = defaultdict(list)
    for route, view, method in METHODS:
        rule = rule_of(view, method)
        named = ", ".join(sorted(names_of(rule))) or str(rule)
        found[f"{named}{' of people' if method in view.people_only else ''}"].append((route, view, method))
    return found


RULES = by_rule()


def status(secret: str, method: str, route: str) -> int:
    """Return what a credential is answered, whose effects are undone."""
    with transaction.atomic():
        client = build.client(secret)
        answer = client.generic(method, sample(route), b"{}", content_type="application/json")
        transaction.set_rollback(True)
    return answer.status_code


def others(expected: int, answers: dict[str, int]) -> dict[str, int]:
    """Return the answers that are none of the expected ones."""
    return {place: code for place, code in answers.items() if code != expected}


@pytest.mark.django_db
@pytest.mark.parametrize("routes_of_rule", RULES.values(), ids=RULES)
def test_the_answer_to_each_caller_follows_from_the_permission(routes_of_rule):
    _route, view, method = routes_of_rule[0]
    rule, people_only = rule_of(view, method), method in view.people_only
    names = names_of(rule)
    organization, other = build.organization("lab"), build.organization("other")

    def answers(secret: str = "", *, of_one: bool = False) -> dict[str, int]:
        return {
            f"{method} {route}": status(secret, method, route)
            for route, _view, method in routes_of_rule
            if not of_one or "<slug:slug>" in route
        }

    if rule is not PUBLIC:
        assert others(401, answers()) == {}
    assert others(401, answers("ch_live_nonsense")) == {}

    if rule not in (PUBLIC, AUTHENTICATED):
        key = build.api_key(organization, [name for name in Permission if name not in names])
        assert others(403, answers(key)) == {}
        integration = build.integration([scope for scope in IntegrationScope if scope not in names])
        assert others(403, answers(integration, of_one=True)) == {}
    if people_only:
        assert others(403, answers(build.api_key(organization))) == {}
    for name in [] if people_only else sorted(names & set(Permission)):
        secret = build.api_key(organization, [name])
        row = ApiKey.objects.order_by("-created_at", "-id").filter(organization=organization).first()
        admitted = answers(secret)
        assert {place: code for place, code in admitted.items() if code in (401, 403)} == {}
        assert others(404, answers(build.api_key(other, [name]), of_one=True)) == {}
        Organization.objects.filter(pk=organization.pk).update(status=OrganizationStatus.SUSPENDED)
        assert others(403, answers(secret)) == {}
        Organization.objects.filter(pk=organization.pk).update(status=OrganizationStatus.ACTIVE)
        credentials.revoke(actor=build.actor(), credential=row, now=timezone.now())
        assert others(401, answers(secret)) == {}


def ask(person: User, route: str, method: str, *, stepped_up: bool = True) -> Any:
    client = build.person_client(person, stepped_up=stepped_up)
    return client.generic(method, sample(route), b"{}", content_type="application/json")


@pytest.mark.django_db
def test_another_organizations_owner_finds_none_of_its_routes():
    build.organization("lab")
    stranger = build.member(build.organization("other"), Role.OWNER)

    for route, _view, method in OF_ONE:
        assert ask(stranger, route, method).status_code == 404, f"{method} {route}"


@pytest.mark.django_db
@pytest.mark.parametrize("role", Role)
def test_the_answer_to_each_role_follows_from_the_permission(role):
    # Everything is refused, so that one person can ask for all of it.
    person, refused = build.member(build.organization("lab"), role), 0

    for route, view, method in OF_ONE:
        names = names_of(rule_of(view, method))
        if names and not names & ROLE_PERMISSIONS[role]:
            refusal = ask(person, route, method)
            told = (refusal.status_code, refusal.json()["code"])
            assert told == (403, "insufficient_permissions"), f"{method} {route}"
            refused += 1
        elif method in view.step_up:
            answer = ask(person, route, method, stepped_up=False)
            assert answer.json()["code"] == "step_up_required", f"{method} {route}"
            refused += 1

    assert refused > 5
    Membership.objects.filter(user=person).update(suspended_at=timezone.now())
    for route, _view, method in OF_ONE:
        assert ask(person, route, method).status_code == 404, f"{method} {route}"


def test_every_alias_leads_to_the_same_view():
    everything = dict(routes(get_resolver().url_patterns))
    for route, view in API:
        short = route.removeprefix("api/")
        assert everything[short] is view
        bare = route.removeprefix("api/v1/")
        if bare.startswith(urls.UNPREFIXED):
            assert everything[bare] is view


def test_unknown_paths_of_the_api_end_in_the_error_body():
    assert UnknownPath in dict(routes(get_resolver().url_patterns)).values()
