"""Every API route has a hand-written permission, and the answer to each kind of caller follows from it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from apps.core.http.views import AUTHENTICATED, PUBLIC, Access, ApiView, UnknownPath
from apps.core.permissions import ROLE_PERMISSIONS, IntegrationScope, Permission, Role
from apps.credentials import services as credentials
from apps.credentials.models import ApiKey
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
OF_ONE = [row for row in METHODS if "<slug:slug>" in row[0]]


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


@pytest.mark.django_db
@pytest.mark.parametrize(("route", "view", "method"), METHODS, ids=IDS)
def test_the_answer_to_each_caller_follows_from_the_permission(route, view, method):
    rule = rule_of(view, method)
    names = names_of(rule)
    organization, other = build.organization("lab"), build.organization("other")
    is_of_one = "<slug:slug>" in route

    def status(secret: str = "") -> int:
        return (
            build.client(secret)
            .generic(method, sample(route), b"{}", content_type="application/json")
            .status_code
        )

    def refused_for_permission(secret: str) -> bool:
        answer = build.client(secret).generic(method, sample(route), b"{}", content_type="application/json")
        return answer.status_code == 403

    if rule is not PUBLIC:
        assert status() == 401
    assert status("ch_live_nonsense") == 401

    key_names = [name for name in names if name in set(Permission)]
    lacking = [name for name in Permission if name not in names]
    if rule not in (PUBLIC, AUTHENTICATED):
        assert refused_for_permission(build.api_key(organization, lacking))
        assert (
            refused_for_permission(build.integration([s for s in IntegrationScope if s not in names]))
            or not is_of_one
        )
    people_only = method in view.people_only
    if people_only:
        assert refused_for_permission(build.api_key(organization))
    for name in [] if people_only else key_names:
        secret = build.api_key(organization, [name])
        assert status(secret) not in (401, 403)
        if is_of_one:
            assert status(build.api_key(other, [name])) == 404
        Organization.objects.filter(pk=organization.pk).update(status=OrganizationStatus.SUSPENDED)
        assert status(secret) == 403
        Organization.objects.filter(pk=organization.pk).update(status=OrganizationStatus.ACTIVE)
        key = ApiKey.objects.order_by("-created_at", "-id").filter(organization=organization).first()
        credentials.revoke(actor=build.actor(), credential=key, now=timezone.now())
        assert status(secret) == 401


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
