"""What the search of an organization finds: its pages, people, projects, keys, budgets and documents.

And the other organizations of who looks, so that the keyboard leads there too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.billing.models import Budget
from apps.core.actor import Actor
from apps.core.http import navigation
from apps.core.permissions import Permission
from apps.credentials.models import ApiKey
from apps.invoices import selectors as invoices
from apps.invoices.models import Invoice
from apps.organizations.models import Invite, Membership, Organization, Project

FOUND_MAX = 6  # Of each kind: who has more writes more of the name.


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One thing found. kind: what it is, in a word; detail: what tells it from others of the same title."""

    kind: str | Promise
    title: str
    detail: str
    url: str


def search(
    actor: Actor, organization: Organization, text: str, *, memberships: Sequence[Membership], now: datetime
) -> list[Hit]:
    """Return what has the text in its name, the best known kinds first, at most six of each.

    Only what the actor may read is looked at. Without a text it is the pages alone.
    memberships: those of who looks, by name.
    """
    asked = _Asked(actor=actor, organization=organization, text=text, now=now)
    found = list(_pages(asked))
    if not text:
        return found
    found += _organizations(asked, memberships)
    for permission, look in _KINDS:
        if actor.can(permission):
            found += look(asked)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Who looks for what, and where."""

    actor: Actor
    organization: Organization
    text: str
    now: datetime

    def at(self, route: str, **arguments: Any) -> str:
        """Return the address of a page of the organization."""
        return reverse(route, kwargs={"slug": self.organization.slug, **arguments})


def _pages(asked: _Asked) -> Iterator[Hit]:
    wanted = asked.text.casefold()
    for section in navigation.sections():
        may = section.permission is None or asked.actor.can(section.permission)
        if may and wanted in str(section.label).casefold():
            yield Hit(kind=_("Page"), title=str(section.label), detail="", url=asked.at(section.route))
    for label, route in ((_("Profile"), "profile"), (_("Security"), "security")):
        if wanted in str(label).casefold():
            yield Hit(kind=_("Page"), title=str(label), detail=str(_("your account")), url=reverse(route))


def _organizations(asked: _Asked, memberships: Sequence[Membership]) -> list[Hit]:
    wanted = asked.text.casefold()
    others = [row.organization for row in memberships if row.organization_id != asked.organization.pk]
    named = [one for one in others if wanted in one.name.casefold() or wanted in one.slug]
    return [
        Hit(
            kind=_("Organization"),
            title=one.name,
            detail=one.slug,
            url=reverse("overview", kwargs={"slug": one.slug}),
        )
        for one in named[:FOUND_MAX]
    ]


def _members(asked: _Asked) -> list[Hit]:
    rows = Membership.objects.visible_to(asked.actor).select_related("user")
    named = rows.filter(Q(user__name__icontains=asked.text) | Q(user__email__icontains=asked.text))
    return [
        Hit(
            kind=_("Member"),
            title=row.user.get_full_name(),
            detail=row.user.email,
            url=asked.at("member", member_id=row.pk),
        )
        for row in _first(named, "user__name", "user__email", "pk")
    ]


def _invites(asked: _Asked) -> list[Hit]:
    rows = Invite.objects.visible_to(asked.actor).open(asked.now).filter(email__icontains=asked.text)
    return [
        Hit(kind=_("Invite"), title=row.email, detail=row.get_role_display(), url=asked.at("members"))
        for row in _first(rows, "email", "pk")
    ]


def _projects(asked: _Asked) -> list[Hit]:
    rows = Project.objects.visible_to(asked.actor).filter(
        Q(name__icontains=asked.text) | Q(slug__icontains=asked.text)
    )
    return [
        Hit(kind=_("Project"), title=row.name, detail=row.slug, url=asked.at("project", project_id=row.pk))
        for row in _first(rows, "slug", "pk")
    ]


def _keys(asked: _Asked) -> list[Hit]:
    rows = ApiKey.objects.visible_to(asked.actor).filter(revoked_at=None)
    named = rows.filter(Q(name__icontains=asked.text) | Q(public_id__icontains=asked.text))
    return [
        Hit(kind=_("API key"), title=row.name, detail=row.masked, url=asked.at("key", key_id=row.pk))
        for row in _first(named, "name", "pk")
    ]


def _budgets(asked: _Asked) -> list[Hit]:
    rows = Budget.objects.visible_to(asked.actor).in_force().filter(name__icontains=asked.text)
    # Who may not change a budget reads it in the list.
    changes = asked.actor.can(Permission.BUDGETS_MANAGE)
    return [
        Hit(
            kind=_("Budget"),
            title=row.name,
            detail="",
            url=asked.at("budget", budget_id=row.pk) if changes else asked.at("budgets"),
        )
        for row in _first(rows, "name", "pk")
    ]


def _documents(asked: _Asked) -> list[Hit]:
    about = Q(number__icontains=asked.text) | Q(period__label__startswith=asked.text)
    bills = _first(invoices.invoices_of(asked.actor).filter(about), "-period__starts_at", "-pk")
    notes = _first(invoices.credit_notes_of(asked.actor).filter(about), "-period__starts_at", "-pk")
    return [
        *(_document(_("Invoice"), row, asked.at("invoice", invoice_id=row.pk)) for row in bills),
        *(_document(_("Credit note"), row, asked.at("credit-note", note_id=row.pk)) for row in notes),
    ]


def _document(kind: Promise, row: Invoice, url: str) -> Hit:
    return Hit(kind=kind, title=row.number or str(_("Draft")), detail=row.period.label, url=url)


def _first[Row: Any](rows: QuerySet[Row], *order: str) -> Sequence[Row]:
    return list(rows.order_by(*order)[:FOUND_MAX])


_KINDS: tuple[tuple[Permission, Callable[[_Asked], list[Hit]]], ...] = (
    (Permission.BILLING_READ, _documents),
    (Permission.MEMBERS_READ, _members),
    (Permission.MEMBERS_READ, _invites),
    (Permission.PROJECTS_READ, _projects),
    (Permission.API_KEYS_READ, _keys),
    (Permission.BILLING_READ, _budgets),
)
