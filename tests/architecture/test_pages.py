"""Every page of the portal has a hand-written permission, and the answer to each kind of person follows from it."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from django.db import transaction
from django.test import Client
from django.urls import get_resolver, resolve
from django.utils import timezone

from apps.core.http import navigation
from apps.core.http.pages import OrganizationPage, Page
from apps.core.http.views import AUTHENTICATED, PUBLIC, Access
from apps.core.permissions import ROLE_PERMISSIONS, Permission, Role
from apps.organizations.models import Membership, Organization, OrganizationStatus
from tests import build
from tests.architecture.test_routes import names_of, routes, sample

# The framework's own pages of a person's account keep their own rules.
PAGES = [(route, view) for route, view in routes(get_resolver().url_patterns) if route.startswith("app/")]
METHODS = [
    (route, view, method.upper())
    for route, view in PAGES
    for method in ("get", "post")
    if hasattr(view, method)
]
IDS = [f"{method} {route}" for route, _view, method in METHODS]
OF_ONE = [row for row in METHODS if row[0].startswith("app/<slug:slug>")]


def rule_of(view, method):
    return view().rule_for(method)


def answer(client, method, path):
    return client.generic(method, path, b"", content_type="application/x-www-form-urlencoded")


def leads_to(response):
    return urlsplit(response.headers.get("Location", "")).path


def test_there_are_pages():
    assert len(PAGES) > 5
    assert len(OF_ONE) > 0


@pytest.mark.parametrize(("route", "view", "method"), METHODS, ids=IDS)
def test_every_page_has_its_own_permission(route, view, method):
    assert issubclass(view, Page), f"{route} is no Page"
    owner = next(parent for parent in view.__mro__ if "permission" in vars(parent))
    assert not owner.__module__.startswith("apps.core"), f"{view} inherits its permission"
    rule = rule_of(view, method)
    if isinstance(vars(owner)["permission"], dict):
        assert method in vars(owner)["permission"], f"{view} says nothing of {method}"
    if route.startswith("app/<slug:slug>"):
        assert issubclass(view, OrganizationPage), f"{route} must ask for the organization"
        assert rule is AUTHENTICATED or names_of(rule) <= set(Permission)
    else:
        assert isinstance(rule, Access), f"{route} has no organization to ask a permission of"
    assert route == "app/" or not route.endswith("/")


def tried(client, method, path):
    """Return the answer to a request, whose effects are undone."""
    with transaction.atomic():
        found = answer(client, method, path)
        transaction.set_rollback(True)
    return found


@pytest.mark.django_db
def test_who_is_not_logged_in_is_asked_to():
    build.organization("lab")
    for route, view, method in METHODS:
        response = tried(Client(), method, sample(route))

        if rule_of(view, method) is PUBLIC:
            assert response.status_code in {200, 404}, route
        else:
            assert response.status_code == 302, route
            assert response.headers["Location"].startswith("/accounts/login/?next="), route


@pytest.mark.django_db
def test_a_stranger_finds_what_does_not_exist():
    build.organization("lab")
    client = build.browser(build.member(build.organization("other"), Role.OWNER))
    for route, _view, method in OF_ONE:
        path = sample(route)
        foreign, unknown = (tried(client, method, one) for one in (path, path.replace("lab", "nowhere")))

        assert (foreign.status_code, unknown.status_code) == (404, 404), f"{method} {route}"


@pytest.mark.django_db
@pytest.mark.parametrize("role", Role)
def test_the_answers_to_a_member_follow_from_the_permission(role):
    organization = build.organization("lab")
    person = build.member(organization, role)
    client, stale = build.browser(person), build.browser(person, stepped_up=False)
    for route, view, method in OF_ONE:
        names = names_of(rule_of(view, method))
        allowed = not names or bool(names & ROLE_PERMISSIONS[role])

        found = tried(client, method, sample(route))

        assert (found.status_code == 403) == (not allowed), f"{method} {route}"
        if allowed and method in view.step_up:
            asked = tried(stale, method, sample(route))
            assert leads_to(asked) == "/accounts/reauthenticate/", f"{method} {route}"
        if allowed and "<uuid:" in route:
            assert found.status_code in {404, 405}, f"{method} {route}: an id that does not exist"


@pytest.mark.django_db
def test_suspending_the_organization_or_the_member_ends_every_page():
    organization = build.organization("lab")
    person = build.member(organization, Role.OWNER)
    client = build.browser(person)

    Organization.objects.filter(pk=organization.pk).update(status=OrganizationStatus.SUSPENDED)
    assert {tried(client, method, sample(route)).status_code for route, _view, method in OF_ONE} == {403}
    Organization.objects.filter(pk=organization.pk).update(status=OrganizationStatus.ACTIVE)
    Membership.objects.filter(user=person).update(suspended_at=timezone.now())
    assert {tried(client, method, sample(route)).status_code for route, _view, method in OF_ONE} == {404}


@pytest.mark.django_db
@pytest.mark.parametrize("role", Role)
def test_the_sidebar_leads_only_where_the_person_may_go(role):
    organization = build.organization("lab")
    client = build.browser(build.member(organization, role))
    sections = navigation.sections()

    shown = client.get("/app/lab").context["shell"].groups
    links = {link.section.key: link.url for group in shown for link in group}

    assert len({section.letter for section in sections}) == len(sections)
    for section in sections:
        path = f"/app/lab{'' if section.key == 'overview' else '/' + section.key}"
        rule = rule_of(resolve(path).func.view_class, "GET")
        may = rule is AUTHENTICATED or bool(names_of(rule) & ROLE_PERMISSIONS[role])
        assert (section.key in links) == may, section.key
        if may:
            page = client.get(links[section.key])
            assert page.status_code == 200
            assert f'href="{links[section.key]}" data-go="{section.letter}" aria-current="page"' in page.text
