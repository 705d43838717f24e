"""Making and changing projects."""

from __future__ import annotations

from datetime import datetime

from django.db import IntegrityError, transaction

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.organizations.models import Organization, Project
from apps.organizations.services.checks import SlugTaken, check, wrong_name, wrong_slug
from apps.outbox import services as outbox


@transaction.atomic
def create_project(
    *, actor: Actor, organization: Organization, slug: str, name: str = "", now: datetime
) -> Project:
    """Create a project; its slug is unique within the organization, archived ones included."""
    check(slug=wrong_slug(slug), name=wrong_name(name) if name else None)
    try:
        with transaction.atomic():
            project = Project.objects.create(
                organization=organization, slug=slug, name=name.strip() or slug, created_at=now
            )
    except IntegrityError as error:
        if "organizations_project_slug" in str(error):
            raise SlugTaken(slug=slug) from error
        raise
    audit.record(
        actor=actor, action="project.created", target=project, diff={"slug": slug, "name": project.name}
    )
    outbox.publish(
        "organizations.project_created",
        {"id": project.id, "slug": slug, "name": project.name},
        organization_id=organization.id,
    )
    return project
