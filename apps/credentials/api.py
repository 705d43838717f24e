"""What a caller can learn about itself."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.http.views import AUTHENTICATED, ApiView, Request
from apps.credentials.models import ApiKey, Integration


class OrganizationReference(serializers.Serializer[Any]):
    """An organization, as far as it needs to be recognized."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()


class CredentialOutput(serializers.Serializer[Any]):
    """A credential without its secret."""

    kind = serializers.SerializerMethodField()
    id = serializers.UUIDField()
    public_id = serializers.CharField()
    name = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    expires_at = serializers.DateTimeField(allow_null=True)
    organization = serializers.SerializerMethodField()
    project = serializers.SerializerMethodField()

    def get_kind(self, credential: ApiKey | Integration) -> str:
        return "api_key" if isinstance(credential, ApiKey) else "integration"

    @extend_schema_field(OrganizationReference(allow_null=True))
    def get_organization(self, credential: ApiKey | Integration) -> Any:
        found = credential.organization if isinstance(credential, ApiKey) else None
        return OrganizationReference(found).data if found else None

    def get_project(self, credential: ApiKey | Integration) -> str | None:
        return credential.project.slug if isinstance(credential, ApiKey) and credential.project else None


class ValidationOutput(serializers.Serializer[Any]):
    """That the credential sent holds, and what it is."""

    valid = serializers.BooleanField()
    credential = CredentialOutput()


class UserReference(serializers.Serializer[Any]):
    """A person."""

    id = serializers.UUIDField()
    email = serializers.EmailField()
    name = serializers.CharField()


class MembershipOutput(serializers.Serializer[Any]):
    """A person's place in an organization."""

    organization = OrganizationReference()
    role = serializers.CharField()
    is_default = serializers.BooleanField()


class MeOutput(serializers.Serializer[Any]):
    """Who is asking: a person with memberships, or the credential of a program."""

    user = UserReference(allow_null=True)
    memberships = MembershipOutput(many=True)
    credential = CredentialOutput()


class Validate(ApiView):
    """Whether the credential sent holds."""

    permission = AUTHENTICATED

    @extend_schema(request=None, responses=ValidationOutput)
    def post(self, request: Request) -> Response:
        """Answer 200 for a credential that holds; any other gets the 401 or 403 that it gets everywhere."""
        return Response(ValidationOutput({"valid": True, "credential": request.auth}).data)


class Me(ApiView):
    """Who is asking."""

    permission = AUTHENTICATED

    @extend_schema(responses=MeOutput)
    def get(self, request: Request) -> Response:
        """Return the user with memberships, and the credential in use; a key or integration is no user."""
        return Response(MeOutput({"user": None, "memberships": [], "credential": request.auth}).data)
