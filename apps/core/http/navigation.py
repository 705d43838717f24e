"""The sidebar: which sections there are, and what the shell of a page shows of the person who sees it.

An app lists its sections as `navigation` in its `urls` module; no app needs to know another's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from itertools import groupby
from typing import Any, cast

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.module_loading import import_string, module_has_submodule

from apps.core.permissions import ROLE_PERMISSIONS, Permission, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One entry of the sidebar.

    key: what a page names as its `section`. route: the name of a URL that takes only a slug.
    permission: who sees it; None: every member. position: ascending; a new hundred begins a new group.
    letter: pressed after `g`, it leads there.
    """

    key: str
    label: str | Promise
    route: str
    permission: Permission | None
    position: int
    letter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """One line above everything, with one action. tone: info, caution or danger."""

    text: str
    tone: str = "info"
    action_text: str = ""
    action_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A section as one page shows it."""

    section: Section
    url: str
    is_current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """What surrounds a page: the person's memberships, the organization at hand, its sections and the banner.

    section: the key of the one that the page belongs to, if it belongs to one.
    """

    memberships: Sequence[Any] = ()
    organization: Any = None
    section: str = ""
    role: str = ""
    groups: Sequence[Sequence[Link]] = field(default_factory=list)
    banner: Banner | None = None


@cache
def sections() -> tuple[Section, ...]:
    """Return every section that an app lists, in the order of the sidebar."""
    found: list[Section] = []
    for config in apps.get_app_configs():
        if config.name.startswith("apps.") and config.module and module_has_submodule(config.module, "urls"):
            found += getattr(import_module(f"{config.name}.urls"), "navigation", [])
    return tuple(sorted(found, key=lambda section: section.position))


def route_of(section: str, *, permissions: Collection[str]) -> str | None:
    """Return the route of the section with this key, if there is one and these permissions let somebody see it."""
    for found in sections():
        if found.key == section and (found.permission is None or found.permission in permissions):
            return found.route
    return None


def shell_of(request: HttpRequest) -> Shell:
    """Return what surrounds a page of this request; outside of organizations it is about the default one."""
    if not request.user.is_authenticated:
        return Shell()
    known: Sequence[Any] | None = getattr(request, "memberships", None)
    memberships = _named(settings.SHELL_MEMBERSHIPS)(request.user.pk) if known is None else known
    match = request.resolver_match
    # The page itself may have refused before it knew its organization.
    slug = match.kwargs.get("slug") if match and "organization" in vars(request) else None
    wanted = [row for row in memberships if row.organization.slug == slug]
    membership = next(iter(wanted or [row for row in memberships if row.is_default]), None)
    if membership is None:
        return Shell(memberships=memberships)
    own = ROLE_PERMISSIONS[Role(membership.role)]
    current = getattr(getattr(match.func if match else None, "view_class", None), "section", "")
    links = [
        Link(
            section=section,
            url=reverse(section.route, kwargs={"slug": membership.organization.slug}),
            is_current=section.key == current,
        )
        for section in sections()
        if section.permission is None or section.permission in own
    ]
    return Shell(
        memberships=memberships,
        organization=membership.organization,
        section=current,
        role=membership.get_role_display(),
        groups=[
            list(group) for _hundred, group in groupby(links, key=lambda link: link.section.position // 100)
        ],
        banner=_banner(request, membership) if wanted else None,
    )


def _banner(request: HttpRequest, membership: Any) -> Banner | None:
    """Return the first banner that one of settings.PAGE_BANNERS has to show."""
    for name in settings.PAGE_BANNERS:
        found: Banner | None = _named(name)(request=request, membership=membership)
        if found is not None:
            return found
    return None


@cache
def _named(name: str) -> Callable[..., Any]:
    return cast("Callable[..., Any]", import_string(name))
