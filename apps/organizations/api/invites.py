"""REST: inviting people, and answering an invite."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.actor import Actor, ActorKind
from apps.core.http.filters import CreatedFilterSet, refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import AUTHENTICATED, PUBLIC, ApiView, ListMixin, OrganizationView, Request
from apps.core.permissions import Permission, Role
from apps.idempotency.mixins import IdempotentMixin
from apps.identity import selectors as identity
from apps.organizations import services as organizations
from apps.organizations.models import Invite


class PersonOutput(serializers.Serializer[Any]):
    """A person."""

    id = serializers.UUIDField()
    email = serializers.EmailField()
    name = serializers.CharField()


class InviteInput(Input):
    """Whom to invite, and to which role."""

    email = serializers.EmailField()
    role = serializers.ChoiceField(choices=Role.choices)


class InviteOutput(serializers.Serializer[Any]):
    """An invite; `state` is pending, expired, accepted, declined or revoked. Its link is in the mail only."""

    id = serializers.UUIDField()
    email = serializers.EmailField()
    role = serializers.CharField()
    state = serializers.SerializerMethodField()
    invited_by = PersonOutput(allow_null=True)
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()

    def get_state(self, invite: Invite) -> str:
        return invite.state(timezone.now())


class InviteFilters(CreatedFilterSet):
    """By address or role."""

    email = filters.CharFilter()
    role = filters.MultipleChoiceFilter(choices=Role.choices)


class InvitingView(IdempotentMixin, OrganizationView):
    """A view that can invite."""

    def invite(self, request: Request) -> Response:
        """Invite the address in the body."""
        body = InviteInput.parse(request)
        made = organizations.invite(
            actor=self.actor,
            organization=self.organization,
            email=body["email"],
            role=Role(body["role"]),
            now=timezone.now(),
        )
        return Response(InviteOutput(made).data, status=201)


class InviteList(ListMixin, InvitingView):
    """The invites, answered ones included."""

    permission = {"GET": Permission.MEMBERS_READ, "POST": Permission.MEMBERS_INVITE}
    people_only = frozenset({"POST"})
    step_up = frozenset({"POST"})
    serializer_class = InviteOutput
    filterset_class = InviteFilters

    def get_queryset(self) -> QuerySet[Invite]:
        """Return the invites with who sent them."""
        return Invite.objects.visible_to(self.actor).select_related("invited_by")

    @extend_schema(request=InviteInput, responses={201: InviteOutput})
    def post(self, request: Request, **_path: Any) -> Response:
        """Invite somebody by mail; they are a member once they accept."""
        return self.invite(request)


class InviteDetail(IdempotentMixin, OrganizationView):
    """One invite."""

    permission = {"GET": Permission.MEMBERS_READ, "DELETE": Permission.MEMBERS_INVITE}
    people_only = frozenset({"DELETE"})

    @extend_schema(responses=InviteOutput)
    def get(self, request: Request, **path: Any) -> Response:
        """Return one invite."""
        refuse_unknown_parameters(request, set())
        return Response(InviteOutput(_invite(self, path["invite_id"])).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, **path: Any) -> Response:
        """Take an invite back."""
        invite = _invite(self, path["invite_id"])
        organizations.revoke_invite(actor=self.actor, invite=invite, now=timezone.now())
        return Response(status=204)


class InviteResend(IdempotentMixin, OrganizationView):
    """An invite's mail, again."""

    permission = Permission.MEMBERS_INVITE
    people_only = frozenset({"POST"})
    step_up = frozenset({"POST"})

    @extend_schema(request=None, responses=InviteOutput)
    def post(self, request: Request, **path: Any) -> Response:
        """Mail a new link, for seven days; the old one ends."""
        invite = _invite(self, path["invite_id"])
        sent = organizations.resend(actor=self.actor, invite=invite, now=timezone.now())
        return Response(InviteOutput(sent).data)


def _invite(view: OrganizationView, invite_id: UUID) -> Invite:
    return get_object_or_404(Invite.objects.visible_to(view.actor).select_related("invited_by"), pk=invite_id)


class PublicOrganizationOutput(serializers.Serializer[Any]):
    """What the holder of a link may know of an organization before they are known themselves."""

    name = serializers.CharField()


class ReceivedInviteOutput(serializers.Serializer[Any]):
    """An invite, as the person sees it whose address it is for."""

    id = serializers.UUIDField()
    organization = PublicOrganizationOutput()
    email = serializers.EmailField()
    role = serializers.CharField()
    expires_at = serializers.DateTimeField()


class InviteByTokenOutput(serializers.Serializer[Any]):
    """The organization's name; to the person invited also the rest."""

    organization = PublicOrganizationOutput()
    id = serializers.UUIDField(required=False)
    email = serializers.EmailField(required=False)
    role = serializers.CharField(required=False)
    expires_at = serializers.DateTimeField(required=False)


class JoinedOutput(serializers.Serializer[Any]):
    """The membership that an accepted invite made."""

    id = serializers.UUIDField()
    organization = serializers.CharField(source="organization.slug")
    role = serializers.CharField()


class InviteByToken(ApiView):
    """An invite by the token of its mail."""

    permission = PUBLIC

    @extend_schema(responses=InviteByTokenOutput)
    def get(self, request: Request, **path: Any) -> Response:
        """Return whose invite it is, changing nothing; a wrong person learns no more than of no invite."""
        refuse_unknown_parameters(request, set())
        invite = organizations.find_by_token(path["token"], now=timezone.now())
        if self.actor.kind == ActorKind.USER and self.actor.id is not None:
            organizations.open_to(actor=self.actor, invite=invite, now=timezone.now())
            return Response(ReceivedInviteOutput(invite).data)
        return Response({"organization": PublicOrganizationOutput(invite.organization).data})


class _AnsweringView(ApiView):
    """A view with which a person answers an invite; what is not open to them does not exist."""

    permission = AUTHENTICATED
    people_only = frozenset({"POST"})

    def found(self, path: dict[str, Any]) -> Invite:
        """Return the invite that the path names by token or, among the person's own, by id."""
        if "token" in path:
            return organizations.find_by_token(path["token"], now=timezone.now())
        return get_object_or_404(_received(self.actor), pk=path["invite_id"])


class InviteAccept(_AnsweringView):
    """Accepting an invite."""

    permission = AUTHENTICATED

    @extend_schema(request=None, responses=JoinedOutput)
    def post(self, request: Request, **path: Any) -> Response:
        """Become a member, with a verified address that the invite is for."""
        membership = organizations.accept_invite(
            actor=self.actor, invite=self.found(path), now=timezone.now()
        )
        return Response(JoinedOutput(membership).data)


class InviteDecline(_AnsweringView):
    """Declining an invite."""

    permission = AUTHENTICATED

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request, **path: Any) -> Response:
        """Refuse the invite; another one may follow."""
        organizations.decline_invite(actor=self.actor, invite=self.found(path), now=timezone.now())
        return Response(status=204)


class ReceivedInviteList(ListMixin, ApiView):
    """The open invites to the caller's verified addresses."""

    permission = AUTHENTICATED
    people_only = frozenset({"GET"})
    serializer_class = ReceivedInviteOutput

    def get_queryset(self) -> QuerySet[Invite]:
        """Return them with their organizations."""
        return _received(self.actor)


def _received(actor: Actor) -> QuerySet[Invite]:
    if actor.kind != ActorKind.USER:  # The OpenAPI document is drawn without a person.
        return Invite.objects.none()
    return Invite.objects.received_by(identity.verified_addresses(actor.person_id), timezone.now())
