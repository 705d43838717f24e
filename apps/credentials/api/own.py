"""REST: what a caller can learn about itself."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.actor import ActorKind
from apps.core.http.serializers import Input
from apps.core.http.views import AUTHENTICATED, ApiView, Request
from apps.credentials.models import ApiKey, TokenFamily
from apps.credentials.services import AnyCredential
from apps.idempotency.mixins import IdempotentMixin
from apps.identity.models import User
from apps.organizations import services as organizations
from apps.organizations.models import Membership


class OrganizationReference(serializers.Serializer[Any]):
    """An organization, as far as it needs to be recognized."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()


class CredentialOutput(serializers.Serializer[Any]):
    """A credential without its secret; of a person's login, `public_id`, `name` and `scopes` are null."""

    kind = serializers.SerializerMethodField()
    id = serializers.UUIDField()
    public_id = serializers.CharField(allow_null=True, default=None)
    name = serializers.CharField(allow_null=True, default=None)
    scopes = serializers.ListField(child=serializers.CharField(), allow_null=True, default=None)
    expires_at = serializers.DateTimeField(allow_null=True)
    organization = serializers.SerializerMethodField()
    project = serializers.SerializerMethodField()

    def get_kind(self, credential: AnyCredential | TokenFamily) -> str:
        if isinstance(credential, TokenFamily):
            return "access_token"
        return "api_key" if isinstance(credential, ApiKey) else "integration"

    @extend_schema_field(OrganizationReference(allow_null=True))
    def get_organization(self, credential: AnyCredential | TokenFamily) -> Any:
        found = credential.organization if isinstance(credential, ApiKey) else None
        return OrganizationReference(found).data if found else None

    def get_project(self, credential: AnyCredential | TokenFamily) -> str | None:
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


def _credential_of(request: Request, organization: Any) -> Any:
    """Return the credential of a request; a key with its organization, which the request has read already."""
    credential = request.auth
    if isinstance(credential, ApiKey):
        credential.organization = organization
    return credential


class Validate(ApiView):
    """Whether the credential sent holds."""

    permission = AUTHENTICATED

    @extend_schema(request=None, responses=ValidationOutput)
    def post(self, request: Request) -> Response:
        """Answer 200 for a credential that holds; any other gets the 401 or 403 that it gets everywhere."""
        return Response(
            ValidationOutput({"valid": True, "credential": _credential_of(request, self.organization)}).data
        )


class MeChange(Input):
    """The organization that requests are about when they name none: its id or slug."""

    default_organization = serializers.CharField()


class Me(IdempotentMixin, ApiView):
    """Who is asking."""

    permission = {"GET": AUTHENTICATED, "PATCH": AUTHENTICATED}
    people_only = frozenset({"PATCH"})

    @extend_schema(responses=MeOutput)
    def get(self, request: Request) -> Response:
        """Return the user with memberships, and the credential in use; a key or integration is no user."""
        return Response(self._shown(request))

    @extend_schema(request=MeChange, responses=MeOutput)
    def patch(self, request: Request) -> Response:
        """Choose the default organization among one's own."""
        reference = MeChange.parse(request)["default_organization"]
        organizations.choose_default(
            actor=self.actor,
            user_id=self.actor.person_id,
            organization=organizations.resolve_organization(reference),
            now=timezone.now(),
        )
        return Response(self._shown(request))

    def _shown(self, request: Request) -> Any:
        user, memberships = None, Membership.objects.none()
        if self.actor.kind == ActorKind.USER:
            user = User.objects.get(pk=self.actor.person_id)
            in_force = Membership.objects.in_force(timezone.now()).filter(user=user)
            memberships = in_force.select_related("organization").order_by("created_at", "pk")
        return MeOutput(
            {
                "user": user,
                "memberships": memberships,
                "credential": _credential_of(request, self.organization),
            }
        ).data
