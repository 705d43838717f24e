"""REST: the keys of an organization, and reports of leaked ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.errors import FieldError, ValidationFailed
from apps.core.http.address import client_address, limiting_address
from apps.core.http.filters import CreatedFilterSet, refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import PUBLIC, ApiView, ListMixin, OrganizationView, Request
from apps.core.permissions import Permission
from apps.credentials import services
from apps.credentials.api.own import UserReference
from apps.credentials.models import ApiKey
from apps.idempotency.mixins import IdempotentMixin
from apps.limits import services as limits
from apps.organizations.models import Project

LEAKS_MAX = 100
OVERLAP_SECONDS_MAX = int(services.OVERLAP_MAX.total_seconds())


class KeyInput(Input):
    """A new key. `project` is an id or a slug; `allowed_ips` are addresses or networks, none for every one."""

    name = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField(), max_length=100)
    project = serializers.CharField(required=False, allow_null=True, default=None)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    allowed_ips = serializers.ListField(
        child=serializers.CharField(), required=False, default=list, max_length=100
    )


class KeyChange(Input):
    """What to change of a key."""

    name = serializers.CharField(required=False)
    is_active = serializers.BooleanField(required=False)


class RotationInput(Input):
    """How long the old secret works beside the new one, at most seven days."""

    overlap_seconds = serializers.IntegerField(
        required=False, default=0, min_value=0, max_value=OVERLAP_SECONDS_MAX
    )


class KeyOutput(serializers.Serializer[Any]):
    """A key without its secret; `masked` is what of it may be shown."""

    id = serializers.UUIDField()
    public_id = serializers.CharField()
    masked = serializers.CharField()
    name = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    project = serializers.CharField(source="project.slug", default=None, allow_null=True)
    allowed_ips = serializers.ListField(child=serializers.CharField(), source="allowed_addresses")
    is_active = serializers.BooleanField()
    expires_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)
    previous_expires_at = serializers.DateTimeField(
        allow_null=True, help_text="Until then the secret before the last rotation works as well."
    )
    last_used_at = serializers.DateTimeField(allow_null=True)
    created_by = UserReference(allow_null=True)
    created_at = serializers.DateTimeField()


class KeySecretOutput(KeyOutput):
    """A key with its secret, which is shown this once."""

    secret = serializers.CharField()


class KeyFilters(CreatedFilterSet):
    """By state, project or name."""

    is_active = filters.BooleanFilter()
    revoked = filters.BooleanFilter(field_name="revoked_at", lookup_expr="isnull", exclude=True)
    project = filters.CharFilter(field_name="project__slug")
    public_id = filters.CharFilter()


class _KeyView(IdempotentMixin, OrganizationView):
    """A view of keys; a repeated request gets the answer back with the secret masked."""

    def keys(self) -> QuerySet[ApiKey]:
        """Return the keys of the organization."""
        return ApiKey.objects.visible_to(self.actor).select_related("project", "created_by")

    def key(self, key_id: UUID) -> ApiKey:
        """Return one of them, or raise NotFound."""
        return get_object_or_404(self.keys(), pk=key_id)

    def mask_replay(self, data: Any) -> Any:
        """Keep the answer without the secret."""
        return data | {"secret": data["masked"]} if isinstance(data, dict) and "secret" in data else data

    def shown_once(self, key: ApiKey, secret: str, *, status: int) -> Response:
        """Return the one answer that has the secret."""
        return Response({**KeyOutput(key).data, "secret": secret}, status=status)


class KeyList(ListMixin, _KeyView):
    """The keys, revoked ones included."""

    permission = {"GET": Permission.API_KEYS_READ, "POST": Permission.API_KEYS_CREATE}
    step_up = frozenset({"POST"})
    serializer_class = KeyOutput
    filterset_class = KeyFilters
    sortable: ClassVar = {"created_at": ("created_at", "id"), "name": ("name", "id")}

    def get_queryset(self) -> QuerySet[ApiKey]:
        """Return the keys."""
        return self.keys()

    @extend_schema(request=KeyInput, responses={201: KeySecretOutput})
    def post(self, request: Request, **_path: Any) -> Response:
        """Make a key; its scopes are among the caller's own, and its secret is in this answer only."""
        body = KeyInput.parse(request)
        key, secret = services.create_api_key(
            actor=self.actor,
            organization=self.organization,
            name=body["name"],
            scopes=body["scopes"],
            project=self._project(body["project"]),
            expires_at=body["expires_at"],
            allowed_addresses=body["allowed_ips"],
            now=timezone.now(),
        )
        return self.shown_once(key, secret, status=201)

    def _project(self, reference: str | None) -> Project | None:
        if reference is None:
            return None
        projects = Project.objects.visible_to(self.actor).active()
        try:
            found = projects.filter(pk=UUID(reference)).first()
        except ValueError:
            found = projects.filter(slug=reference).first()
        if found is None:
            message = _("There is no such project.")
            raise ValidationFailed(fields=[FieldError(path="project", code="invalid", message=message)])
        return found


class KeyDetail(_KeyView):
    """One key."""

    permission = {
        "GET": Permission.API_KEYS_READ,
        "PATCH": Permission.API_KEYS_MANAGE,
        "DELETE": Permission.API_KEYS_MANAGE,
    }
    step_up = frozenset({"PATCH", "DELETE"})

    @extend_schema(responses=KeyOutput)
    def get(self, request: Request, **path: Any) -> Response:
        """Return one key."""
        refuse_unknown_parameters(request, set())
        return Response(KeyOutput(self.key(path["key_id"])).data)

    @extend_schema(request=KeyChange, responses=KeyOutput)
    def patch(self, request: Request, **path: Any) -> Response:
        """Rename a key, switch it off, or on again."""
        key = self.key(path["key_id"])
        services.change(actor=self.actor, credential=key, **KeyChange.parse(request))
        return Response(KeyOutput(self.key(key.id)).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, **path: Any) -> Response:
        """Revoke a key for good; it stays in the list."""
        services.revoke(actor=self.actor, credential=self.key(path["key_id"]), now=timezone.now())
        return Response(status=204)


class KeyRotate(_KeyView):
    """A new secret for a key."""

    permission = Permission.API_KEYS_MANAGE
    step_up = frozenset({"POST"})

    @extend_schema(request=RotationInput, responses=KeySecretOutput)
    def post(self, request: Request, **path: Any) -> Response:
        """Give the key a new secret, in this answer only; the old one works on for the overlap."""
        key = self.key(path["key_id"])
        overlap = RotationInput.parse(request)["overlap_seconds"]
        _rotated, secret = services.rotate(
            actor=self.actor, credential=key, overlap=timedelta(seconds=overlap), now=timezone.now()
        )
        return self.shown_once(self.key(key.id), secret, status=200)


class LeakInput(Input):
    """Whole secrets that were found somewhere."""

    tokens = serializers.ListField(child=serializers.CharField(), max_length=LEAKS_MAX)


class LeakReport(ApiView):
    """Reports of secrets found in public places, from anybody."""

    permission = PUBLIC

    @extend_schema(request=LeakInput, responses={202: None})
    def post(self, request: Request) -> Response:
        """Revoke those that are secrets of ours and tell their owners; the answer says nothing of which."""
        tokens = LeakInput.parse(request)["tokens"]
        limits.guard(limits.LEAK_REPORT, limiting_address(client_address(request._request)))
        services.report_leaks(tokens=tokens, address=client_address(request._request), now=timezone.now())
        return Response(status=202)
