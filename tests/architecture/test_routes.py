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


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("route", "view", "method"),
    [row for row in METHODS if "<slug:slug>" in row[0]],
    ids=[identity for identity in IDS if "<slug:slug>" in identity],
)
def test_the_answer_to_each_role_follows_from_the_permission(route, view, method):
    names = names_of(rule_of(view, method))
    organization, other = build.organization("lab"), build.organization("other")
    stranger = build.member(other, Role.OWNER)

    def answer(person, **how):
        client = build.person_client(person, **how)
        return client.generic(method, sample(route), b"{}", content_type="application/json")

    assert answer(stranger).status_code == 404
    for role in Role:
        person = build.member(organization, role)
        allowed = not names or (names & ROLE_PERMISSIONS[role])
        if not allowed:
            refusal = answer(person)
            assert (refusal.status_code, refusal.json()["code"]) == (403, "insufficient_permissions"), role
        elif method in view.step_up:
            assert answer(person, stepped_up=False).json()["code"] == "step_up_required", role
        Membership.objects.filter(user=person).update(suspended_at=timezone.now())
        assert answer(person).status_code == 404, role


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
