"""REST: members, leaving, and handing an organization over."""

from __future__ import annotations

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
from apps.core.http.filters import CreatedFilterSet, refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import AUTHENTICATED, ListMixin, OrganizationView, Request
from apps.core.permissions import Permission, Role
from apps.idempotency.mixins import IdempotentMixin
from apps.organizations import services as organizations
from apps.organizations.api.invites import InviteInput, InviteOutput, InvitingView, PersonOutput
from apps.organizations.models import Membership

REVOKE = "revoke"


class MemberOutput(serializers.Serializer[Any]):
    """A member. `suspended` blocks; a member whose `expires_at` has passed is no member any more."""

    id = serializers.UUIDField()
    user = PersonOutput()
    role = serializers.CharField()
    suspended = serializers.SerializerMethodField()
    expires_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()

    def get_suspended(self, member: Membership) -> bool:
        return member.suspended_at is not None


class MemberChange(Input):
    """What to change of a member."""

    role = serializers.ChoiceField(choices=Role.choices, required=False)
    suspended = serializers.BooleanField(required=False)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class LeaverInput(Input):
    """What becomes of the member's keys: `revoke`, or the id of the member who gets them."""

    keys = serializers.CharField(required=False, default=REVOKE)


class TransferInput(Input):
    """The member who is to own the organization."""

    member = serializers.UUIDField()


class OfferOutput(serializers.Serializer[Any]):
    """An offer of ownership, until it is accepted, declined, withdrawn or over."""

    id = serializers.UUIDField()
    member = serializers.UUIDField(source="member_id")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


class MemberFilters(CreatedFilterSet):
    """By role, or one address."""

    role = filters.MultipleChoiceFilter(choices=Role.choices)
    email = filters.CharFilter(field_name="user__email")
    suspended = filters.BooleanFilter(field_name="suspended_at", lookup_expr="isnull", exclude=True)


class MemberList(ListMixin, InvitingView):
    """The members."""

    permission = {"GET": Permission.MEMBERS_READ, "POST": Permission.MEMBERS_INVITE}
    people_only = frozenset({"POST"})
    step_up = frozenset({"POST"})
    serializer_class = MemberOutput
    filterset_class = MemberFilters
    sortable: ClassVar = {"created_at": ("created_at", "id"), "email": ("user__email",)}

    def get_queryset(self) -> QuerySet[Membership]:
        """Return the members with the people behind them."""
        return Membership.objects.visible_to(self.actor).select_related("user")

    @extend_schema(request=InviteInput, responses={201: InviteOutput})
    def post(self, request: Request, **_path: Any) -> Response:
        """Invite somebody by mail; they are a member once they accept."""
        return self.invite(request)


class MemberDetail(IdempotentMixin, OrganizationView):
    """One member."""

    permission = {
        "GET": Permission.MEMBERS_READ,
        "PATCH": Permission.MEMBERS_MANAGE,
        "DELETE": Permission.MEMBERS_MANAGE,
    }
    people_only = frozenset({"PATCH", "DELETE"})
    step_up = frozenset({"PATCH", "DELETE"})

    @extend_schema(responses=MemberOutput)
    def get(self, request: Request, **path: Any) -> Response:
        """Return one member."""
        refuse_unknown_parameters(request, set())
        return Response(MemberOutput(self._member(path["member_id"])).data)

    @extend_schema(request=MemberChange, responses=MemberOutput)
    def patch(self, request: Request, **path: Any) -> Response:
        """Change role, suspension or end; nobody gives more than they have or touches somebody above them."""
        member = self._member(path["member_id"])
        body = MemberChange.parse(request)
        changed = organizations.change_member(
            actor=self.actor,
            membership=member,
            role=Role(body["role"]) if "role" in body else None,
            suspended=body.get("suspended"),
            expires_at=body.get("expires_at"),
            keep_expiry="expires_at" not in body,
            now=timezone.now(),
        )
        return Response(MemberOutput(changed).data)

    @extend_schema(request=LeaverInput, responses={204: None})
    def delete(self, request: Request, **path: Any) -> Response:
        """Remove a member; their keys are revoked, or handed to the member named."""
        member = self._member(path["member_id"])
        body = LeaverInput.parse(request)
        organizations.remove_member(
            actor=self.actor, membership=member, keys_to=_heir(self, body["keys"]), now=timezone.now()
        )
        return Response(status=204)

    def _member(self, member_id: UUID) -> Membership:
        return get_object_or_404(
            Membership.objects.visible_to(self.actor).select_related("user"), pk=member_id
        )


class Leave(IdempotentMixin, OrganizationView):
    """Leaving an organization."""

    permission = AUTHENTICATED
    people_only = frozenset({"POST"})

    @extend_schema(request=LeaverInput, responses={204: None})
    def post(self, request: Request, **_path: Any) -> Response:
        """End the caller's own membership; the last owner cannot."""
        body = LeaverInput.parse(request)
        own = Membership.objects.visible_to(self.actor).get(user_id=self.actor.person_id)
        organizations.remove_member(
            actor=self.actor, membership=own, keys_to=_heir(self, body["keys"]), now=timezone.now()
        )
        return Response(status=204)


class Transfer(IdempotentMixin, OrganizationView):
    """Offering the ownership to another member."""

    permission = Permission.ORGANIZATION_TRANSFER
    people_only = frozenset({"POST", "DELETE"})
    step_up = frozenset({"POST"})

    @extend_schema(request=TransferInput, responses={201: OfferOutput})
    def post(self, request: Request, **_path: Any) -> Response:
        """Offer one's ownership; the member has seven days to accept, and a new offer replaces the old."""
        body = TransferInput.parse(request)
        member = Membership.objects.visible_to(self.actor).filter(pk=body["member"]).first()
        if member is None:
            message = _("This is the id of another member who is neither suspended nor expired.")
            raise ValidationFailed(fields=[FieldError(path="member", code="invalid", message=message)])
        offer = organizations.offer_ownership(actor=self.actor, membership=member, now=timezone.now())
        return Response(OfferOutput(offer).data, status=201)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, **_path: Any) -> Response:
        """Take the offer back; the member is told."""
        organizations.withdraw_offer(actor=self.actor, organization=self.organization, now=timezone.now())
        return Response(status=204)


class TransferAccept(IdempotentMixin, OrganizationView):
    """Accepting the ownership."""

    permission = AUTHENTICATED
    people_only = frozenset({"POST"})
    step_up = frozenset({"POST"})

    @extend_schema(request=None, responses=MemberOutput)
    def post(self, request: Request, **_path: Any) -> Response:
        """Become the owner; whoever offered it becomes an admin."""
        member = organizations.accept_ownership(
            actor=self.actor, organization=self.organization, now=timezone.now()
        )
        return Response(MemberOutput(member).data)


class TransferDecline(IdempotentMixin, OrganizationView):
    """Declining the ownership."""

    permission = AUTHENTICATED
    people_only = frozenset({"POST"})

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request, **_path: Any) -> Response:
        """Decline the offer; everything stays as it is, and whoever offered it is told."""
        organizations.decline_ownership(actor=self.actor, organization=self.organization, now=timezone.now())
        return Response(status=204)


def _heir(view: OrganizationView, keys: str) -> Membership | None:
    """Return the member who gets a leaver's keys, None to revoke them; whoever is no member is a wrong field."""
    if keys == REVOKE:
        return None
    message = _("This is `revoke` or the id of another member.")
    wrong = ValidationFailed(fields=[FieldError(path="keys", code="invalid", message=message)])
    try:
        heir_id = UUID(keys)
    except ValueError:
        raise wrong from None
    heir = Membership.objects.visible_to(view.actor).filter(pk=heir_id).first()
    if heir is None:
        raise wrong
    return heir
