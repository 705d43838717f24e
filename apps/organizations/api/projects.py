"""REST: projects."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.http.filters import CreatedFilterSet, refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import ListMixin, OrganizationView, Request
from apps.core.permissions import Permission
from apps.idempotency.mixins import IdempotentMixin
from apps.organizations import services as organizations
from apps.organizations.models import Project


class ProjectInput(Input):
    """A new project; either of slug and name stands for the other."""

    slug = serializers.CharField(required=False, allow_blank=True, default="")
    name = serializers.CharField(required=False, allow_blank=True, default="")


class ProjectChange(Input):
    """What to change of a project; its slug stays, because usage events name it."""

    name = serializers.CharField(required=False)
    archived = serializers.BooleanField(required=False)


class ProjectOutput(serializers.Serializer[Any]):
    """A project."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()
    archived = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    def get_archived(self, project: Project) -> bool:
        return project.archived_at is not None


class ProjectFilters(CreatedFilterSet):
    """By slug or state."""

    slug = filters.CharFilter()
    archived = filters.BooleanFilter(field_name="archived_at", lookup_expr="isnull", exclude=True)


class ProjectList(ListMixin, IdempotentMixin, OrganizationView):
    """The projects, archived ones included."""

    permission = {"GET": Permission.PROJECTS_READ, "POST": Permission.PROJECTS_MANAGE}
    serializer_class = ProjectOutput
    filterset_class = ProjectFilters
    sortable: ClassVar = {"created_at": ("created_at", "id"), "slug": ("slug",)}

    def get_queryset(self) -> QuerySet[Project]:
        """Return the projects."""
        return Project.objects.visible_to(self.actor)

    @extend_schema(request=ProjectInput, responses={201: ProjectOutput})
    def post(self, request: Request, **_path: Any) -> Response:
        """Make a project."""
        body = ProjectInput.parse(request)
        project = organizations.create_project(
            actor=self.actor, organization=self.organization, now=timezone.now(), **body
        )
        return Response(ProjectOutput(project).data, status=201)


class ProjectDetail(IdempotentMixin, OrganizationView):
    """One project."""

    permission = {"GET": Permission.PROJECTS_READ, "PATCH": Permission.PROJECTS_MANAGE}

    @extend_schema(responses=ProjectOutput)
    def get(self, request: Request, **path: Any) -> Response:
        """Return one project."""
        refuse_unknown_parameters(request, set())
        return Response(ProjectOutput(self._project(path["project_id"])).data)

    @extend_schema(request=ProjectChange, responses=ProjectOutput)
    def patch(self, request: Request, **path: Any) -> Response:
        """Rename a project, archive it or bring it back."""
        project = self._project(path["project_id"])
        body = ProjectChange.parse(request)
        changed = organizations.change_project(actor=self.actor, project=project, now=timezone.now(), **body)
        return Response(ProjectOutput(changed).data)

    def _project(self, project_id: UUID) -> Project:
        return get_object_or_404(Project.objects.visible_to(self.actor), pk=project_id)
