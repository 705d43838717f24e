"""REST: organizations, made, changed and deleted."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.actor import ActorKind
from apps.core.http.filters import CreatedFilterSet, refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import AUTHENTICATED, ApiView, ListMixin, OrganizationView, Request
from apps.core.permissions import Permission
from apps.idempotency.mixins import IdempotentMixin
from apps.identity.models import User
from apps.organizations import services as organizations
from apps.organizations.models import Organization


class OrganizationInput(Input):
    """A new organization."""

    name = serializers.CharField()
    slug = serializers.CharField(required=False, allow_null=True, default=None)
    billing_email = serializers.EmailField(required=False, allow_blank=True)


class OrganizationChange(Input):
    """What to change of an organization."""

    name = serializers.CharField(required=False)
    slug = serializers.CharField(required=False)
    billing_email = serializers.EmailField(required=False, allow_blank=True)
    timezone = serializers.CharField(required=False)
    require_mfa = serializers.BooleanField(required=False)


class OrganizationOutput(serializers.Serializer[Any]):
    """An organization. `mfa_grace_ends_at`: from then on members without a second factor are blocked."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()
    status = serializers.CharField()
    billing_email = serializers.CharField()
    currency = serializers.CharField()
    timezone = serializers.CharField()
    plan = serializers.CharField()
    billing_state = serializers.CharField()
    require_mfa = serializers.BooleanField()
    mfa_grace_ends_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class OrganizationFilters(CreatedFilterSet):
    """By name or state."""

    slug = filters.CharFilter()
    status = filters.CharFilter()


class OrganizationList(ListMixin, IdempotentMixin, ApiView):
    """The organizations that the caller has a part in."""

    permission = {"GET": AUTHENTICATED, "POST": AUTHENTICATED}
    people_only = frozenset({"POST"})
    serializer_class = OrganizationOutput
    filterset_class = OrganizationFilters
    sortable: ClassVar = {"created_at": ("created_at", "id"), "slug": ("slug",), "name": ("name", "id")}

    def get_queryset(self) -> QuerySet[Organization]:
        """Return a person's organizations, a key's own one, or every one for an integration that may read them."""
        if self.actor.kind == ActorKind.USER:
            return Organization.objects.of_user(self.actor.person_id, timezone.now())
        if self.actor.organization_id is None and self.actor.can(Permission.ORGANIZATION_READ):
            return Organization.objects.existing()
        return Organization.objects.visible_to(self.actor)

    @extend_schema(request=OrganizationInput, responses={201: OrganizationOutput})
    def post(self, request: Request) -> Response:
        """Make an organization that the caller owns."""
        body = OrganizationInput.parse(request)
        made = organizations.create_organization(
            actor=self.actor, owner=User.objects.get(pk=self.actor.person_id), now=timezone.now(), **body
        )
        return Response(OrganizationOutput(made).data, status=201)


class OrganizationDetail(IdempotentMixin, OrganizationView):
    """One organization; a slug that it had before leads to it as well."""

    permission = {
        "GET": Permission.ORGANIZATION_READ,
        "PATCH": Permission.ORGANIZATION_UPDATE,
        "DELETE": Permission.ORGANIZATION_DELETE,
    }
    people_only = frozenset({"DELETE"})
    step_up = frozenset({"DELETE"})

    @extend_schema(responses=OrganizationOutput)
    def get(self, request: Request, **_path: Any) -> Response:
        """Return the organization."""
        refuse_unknown_parameters(request, set())
        return Response(OrganizationOutput(self.organization).data)

    @extend_schema(request=OrganizationChange, responses=OrganizationOutput)
    def patch(self, request: Request, **_path: Any) -> Response:
        """Change what is given; a person changes `require_mfa` after a step-up, a key never does."""
        body = OrganizationChange.parse(request)
        if "require_mfa" in body:
            self.require_person()
            self.require_step_up()
        changed = organizations.change_organization(
            actor=self.actor, organization=self.organization, now=timezone.now(), **body
        )
        return Response(OrganizationOutput(changed).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, **_path: Any) -> Response:
        """Delete the organization, if nothing is open; support can restore it for 30 days."""
        organizations.delete_organization(
            actor=self.actor, organization=self.organization, now=timezone.now()
        )
        return Response(status=204)
