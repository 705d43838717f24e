"""Whose usage a line bills: by resource and project, as far as that is still known."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from django.db import connection

from apps.invoices.models import InvoiceLine
from apps.organizations.models import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A share of a line's quantity. resource, project: empty where there is none."""

    quantity: Decimal
    resource: str = ""
    project_id: str = ""
    project_name: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def parts_of(lines: Sequence[InvoiceLine]) -> dict[UUID, list[Part]]:
    """Return the parts of each line by its id; their quantities add up to the line's.

    They are the resources' hours, unless those changed after the line was final: then its own split by project.
    """
    found: dict[UUID, list[Part]] = {}
    by_key = _by_resource({line.key_id for line in lines})
    projects = _projects(lines)
    for line in lines:
        parts = by_key.get(line.key_id, [])
        if sum((part.quantity for part in parts), Decimal(0)) != line.quantity:
            parts = _from_splits(line, projects)
        found[line.id] = parts
    return found


def _by_resource(key_ids: set[UUID]) -> dict[UUID, list[Part]]:
    """Return the usage behind charge keys as it is counted now. A single event is no resource."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT charged.key_id, project.id, project.name,
                   CASE WHEN resource.is_single_event THEN NULL ELSE resource.id END AS allocation_id,
                   min(resource.source || '/' || resource.subject), sum(used.quantity)
            FROM billing_chargehour charged
            JOIN billing_chargekey key ON key.id = charged.key_id
            JOIN metering_usagehour used
                ON used.organization_id = key.organization_id AND used.meter = key.meter AND used.sku = key.sku
                AND used.region = key.region AND used.hour = charged.hour AND used.quantity > 0
            JOIN metering_resource resource ON resource.id = used.resource_id
            LEFT JOIN organizations_project project ON project.id = used.project_id
            WHERE charged.key_id = ANY(%s) AND charged.quantity > 0
            GROUP BY charged.key_id, project.id, project.name, allocation_id
            ORDER BY charged.key_id, project.name NULLS FIRST, project.id, 5, allocation_id
            """,
            [list(key_ids)],
        )
        rows = cursor.fetchall()
    labels = _labels({row[3] for row in rows if row[3]})
    found: dict[UUID, list[Part]] = defaultdict(list)
    for key_id, project_id, project_name, resource_id, resource, quantity in rows:
        found[key_id].append(
            Part(
                quantity=quantity,
                resource=resource if resource_id else "",
                project_id=str(project_id or ""),
                project_name=project_name or "",
                labels=labels.get(resource_id, {}),
            )
        )
    return found


def _labels(resource_ids: set[UUID]) -> dict[UUID, dict[str, str]]:
    """Return the labels that each resource was given last."""
    if not resource_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT ON (resource_id) resource_id, labels::text
            FROM (
                SELECT resource_id, labels, time, id FROM metering_usageevent
                WHERE resource_id = ANY(%(ids)s)
                    AND type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
                UNION ALL
                SELECT resource_id, labels, coalesce(ended_at, time), id FROM metering_usageevent
                WHERE resource_id = ANY(%(ids)s) AND type = 'usage.recorded'
            ) told
            WHERE labels <> '{}' ORDER BY resource_id, time DESC, id DESC
            """,
            {"ids": list(resource_ids)},
        )
        return {resource_id: json.loads(labels) for resource_id, labels in cursor.fetchall()}


def _projects(lines: Sequence[InvoiceLine]) -> dict[tuple[UUID, str], Project]:
    rows = Project.objects.filter(organization_id__in={line.organization_id for line in lines})
    return {(project.organization_id, project.slug): project for project in rows}


def _from_splits(line: InvoiceLine, projects: dict[tuple[UUID, str], Project]) -> list[Part]:
    """Return the split that the line keeps, by project; what it does not name has none."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for split in line.splits:
        sums[split["project"] or ""] += Decimal(split["quantity"])
    sums[""] += line.quantity - sum(sums.values(), Decimal(0))
    parts = []
    for slug in sorted(sums):
        if not sums[slug]:
            continue
        project = projects.get((line.organization_id, slug))
        parts.append(
            Part(
                quantity=sums[slug],
                project_id=str(project.id) if project else slug,
                project_name=project.name if project else slug,
            )
        )
    return parts
