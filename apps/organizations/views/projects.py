"""Pages: projects, by which usage and keys are counted."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from apps.core.http.pages import FormMixin, OrganizationPage
from apps.core.http.sorting import Sorting
from apps.core.permissions import Permission
from apps.organizations import services as organizations
from apps.organizations.forms import NewProjectForm, ProjectForm
from apps.organizations.models import Project

_PROJECTS_BY = {
    "name": lambda row: row.name.casefold(),
    "slug": lambda row: row.slug,
    "made": lambda row: row.created_at,
}


class Projects(FormMixin, OrganizationPage):
    """The projects, with the form that makes one."""

    permission = {"GET": Permission.PROJECTS_READ, "POST": Permission.PROJECTS_MANAGE}
    section = "projects"
    template_name = "organizations/projects.html"
    form_class = NewProjectForm

    def context(self) -> dict[str, Any]:
        """Return the projects by slug, archived ones last."""
        found = Project.objects.visible_to(self.actor).order_by("slug")
        sorting = Sorting(self.request, _PROJECTS_BY)
        ordered = sorted(sorting.of(found), key=lambda project: project.archived_at is not None)
        return {"projects": ordered, "sorting": sorting}

    def act(self, form: Any) -> HttpResponse:
        """Make the project."""
        made = organizations.create_project(
            actor=self.actor, organization=self.organization, now=self.now, **form.cleaned_data
        )
        return self.done(_("%(name)s is ready.") % {"name": made.name}, to=self.url("projects"))


class ProjectPage(FormMixin, OrganizationPage):
    """One project: its name, and whether it is in use."""

    permission = {"GET": Permission.PROJECTS_READ, "POST": Permission.PROJECTS_MANAGE}
    section = "projects"
    template_name = "organizations/project.html"
    form_class = ProjectForm

    @property
    def project(self) -> Project:
        """The project of the path; of another organization it does not exist."""
        return get_object_or_404(Project.objects.visible_to(self.actor), pk=self.kwargs["project_id"])

    def form_arguments(self) -> dict[str, Any]:
        """Show the project as it is."""
        project = self.project
        return {"initial": {"name": project.name, "archived": project.archived_at is not None}}

    def context(self) -> dict[str, Any]:
        """Return the project."""
        return {"project": self.project}

    def act(self, form: Any) -> HttpResponse:
        """Change it."""
        changed = organizations.change_project(
            actor=self.actor, project=self.project, now=self.now, **form.changes()
        )
        message = _("%(name)s is changed.") % {"name": changed.name}
        return self.done(message, to=self.url("projects"), undo=self.undo(form))
