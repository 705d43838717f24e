"""What the names in a batch of events stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from django.db.models import Q
from django.utils.translation import gettext as _

from apps.credentials.models import ApiKey
from apps.metering.events import Received
from apps.organizations.models import Project
from apps.organizations.selectors import find_organization_ids
from apps.pricing import selectors as pricing
from apps.pricing.models import Meter

INVALID_EVENT = "invalid_event"
UNKNOWN_ORGANIZATION = "unknown_organization"
UNKNOWN_PROJECT = "unknown_project"
UNKNOWN_REGION = "unknown_region"


class Refusal(NamedTuple):
    """Why an event is not taken."""

    code: str
    message: str


class Resolved(NamedTuple):
    """What the names in an event stand for: ids as text, which keys of dictionaries compare fastest."""

    organization: str
    project: str | None
    credential: str | None


@dataclass(frozen=True, slots=True)
class Names:
    """Everything that the events of a batch refer to, as far as it exists.

    answers: what was found before, by the names in an event; most events of a batch name the same.
    """

    organizations: Mapping[str, UUID]
    projects: Mapping[tuple[UUID, str], UUID]
    keys: Mapping[tuple[UUID, str], UUID]
    regions: frozenset[str]
    meters: frozenset[str]
    answers: dict[tuple[str | None, ...], Resolved | Refusal] = field(default_factory=dict)

    @classmethod
    def of(cls, received: Iterable[Received]) -> Names:
        """Return what a batch refers to, in a handful of queries however large it is."""
        references: set[str] = set()
        project_names: set[str] = set()
        key_names: set[str] = set()
        regional = metered = False
        for event in received:
            references.add(event.organization)
            if event.project:
                project_names.add(event.project)
            if event.api_key:
                key_names.add(event.api_key)
            regional = regional or bool(event.region)
            metered = metered or bool(event.meter)
        # A suspended organization still pays for what it used; a deleted one has nobody left to pay.
        organizations = find_organization_ids(references)
        return cls(
            organizations=organizations,
            projects=_projects(set(organizations.values()), project_names) if project_names else {},
            keys=_keys(set(organizations.values()), key_names) if key_names else {},
            regions=pricing.region_codes() if regional else frozenset(),
            meters=frozenset(Meter.objects.values_list("code", flat=True)) if metered else frozenset(),
        )

    def resolve(self, event: Received) -> Resolved | Refusal:
        """Return what the event's names stand for, or the first reason to refuse it."""
        names = (event.organization, event.project, event.region, event.api_key, event.meter)
        answer = self.answers.get(names)
        if answer is None:
            answer = self.answers[names] = self._answer(event)
        return answer

    def _answer(self, event: Received) -> Resolved | Refusal:
        organization_id = self.organizations.get(event.organization)
        if organization_id is None:
            return Refusal(
                UNKNOWN_ORGANIZATION, _("There is no organization %(name)s.") % {"name": event.organization}
            )
        project_id = self.projects.get((organization_id, event.project)) if event.project else None
        if event.project and project_id is None:
            return Refusal(
                UNKNOWN_PROJECT,
                _("Organization %(organization)s has no project %(name)s.")
                % {"organization": event.organization, "name": event.project},
            )
        if event.region and self.regions and event.region not in self.regions:
            return Refusal(UNKNOWN_REGION, _("There is no region %(name)s.") % {"name": event.region})
        credential_id = self.keys.get((organization_id, event.api_key)) if event.api_key else None
        if event.api_key and credential_id is None:
            return Refusal(
                INVALID_EVENT,
                _("data.api_key %(name)s is no key of organization %(organization)s.")
                % {"name": event.api_key, "organization": event.organization},
            )
        if event.meter and event.meter not in self.meters:
            return Refusal(INVALID_EVENT, _("There is no meter %(name)s.") % {"name": event.meter})
        return Resolved(str(organization_id), _text(project_id), _text(credential_id))


def _projects(organization_ids: set[UUID], names: set[str]) -> dict[tuple[UUID, str], UUID]:
    ids = {name: pk for name in names if (pk := _uuid(name)) is not None}
    rows = Project.objects.filter(
        Q(slug__in=names) | Q(pk__in=ids.values()), organization__in=organization_ids
    ).values_list("organization_id", "slug", "pk")
    found: dict[tuple[UUID, str], UUID] = {}
    by_id: dict[UUID, UUID] = {}
    for organization_id, slug, pk in rows:
        found[organization_id, slug] = pk
        by_id[pk] = organization_id
    return found | {(by_id[pk], name): pk for name, pk in ids.items() if pk in by_id}


def _keys(organization_ids: set[UUID], public_ids: set[str]) -> dict[tuple[UUID, str], UUID]:
    rows = ApiKey.objects.filter(organization__in=organization_ids, public_id__in=public_ids)
    return {
        (organization_id, public_id): pk
        for organization_id, public_id, pk in rows.values_list("organization_id", "public_id", "pk")
    }


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
