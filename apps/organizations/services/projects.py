"""Making and changing projects."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.organizations.models import Organization, Project
from apps.organizations.services.checks import (
    SlugTaken,
    check,
    check_quota,
    slugs_from,
    wrong_name,
    wrong_slug,
)
from apps.outbox import services as outbox


@transaction.atomic
def create_project(
    *, actor: Actor, organization: Organization, slug: str = "", name: str = "", now: datetime
) -> Project:
    """Create a project; its slug is unique within the organization, archived ones included.

    Either of slug and name stands for the other. Raises what the plan's limit of active projects does, see
    `checks.check_quota`.
    """
    check(slug=wrong_slug(slug) if slug else None, name=None if slug and not name else wrong_name(name))
    _check_quota(actor, organization.id, now)
    project = Project(organization=organization, name=name.strip() or slug, created_at=now)
    _claim_slug(project, slug)
    audit.record(
        actor=actor,
        action="project.created",
        target=project,
        diff={"slug": project.slug, "name": project.name},
    )
    outbox.publish(
        "organizations.project_created",
        {"id": project.id, "slug": project.slug, "name": project.name},
        organization_id=organization.id,
    )
    return project


@transaction.atomic
def change_project(
    *,
    actor: Actor,
    project: Project,
    name: str | None = None,
    archived: bool | None = None,
    now: datetime,
) -> Project:
    """Rename a project, archive it or bring it back, if the plan has room. Its slug stays: usage events name it."""
    check(name=None if name is None else wrong_name(name))
    if archived is False and project.archived_at is not None:
        _check_quota(actor, project.organization_id, now)
    project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    was_archived = project.archived_at is not None
    diff: dict[str, Any] = {}
    if name is not None and name.strip() != project.name:
        diff["name"] = [project.name, name.strip()]
        project.name = name.strip()
    if archived is not None and archived != was_archived:
        diff["archived"] = [was_archived, archived]
        project.archived_at = now if archived else None
    if not diff:
        return project
    project.save(update_fields=["name", "archived_at"])
    audit.record(actor=actor, action="project.changed", target=project, diff=diff)
    outbox.publish(
        "organizations.project_changed",
        {
            "id": project.id,
            "slug": project.slug,
            "name": project.name,
            "archived": project.archived_at is not None,
        },
        organization_id=project.organization_id,
    )
    return project


def _check_quota(actor: Actor, organization_id: UUID, now: datetime) -> None:
    """Lock the organization, so that projects are counted one after the other, and check for one more."""
    Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
    active = Project.objects.active().filter(organization_id=organization_id).count()
    check_quota(actor=actor, organization_id=organization_id, quota="projects", using=active + 1, now=now)


def _claim_slug(project: Project, slug: str) -> None:
    """Save a project under its slug, or else under one for its name that no other project has."""
    for candidate in [slug] if slug else slugs_from(project.name, instead="project"):
        project.slug = candidate
        try:
            with transaction.atomic():
                project.save(force_insert=True)
        except IntegrityError as error:
            if "organizations_project_slug" not in str(error):
                raise
            continue
        return
    raise SlugTaken(slug=project.slug)
