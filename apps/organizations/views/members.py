"""Pages: who belongs to an organization, who is invited, and how somebody leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from apps.core.http.pages import FormMixin, OrganizationPage
from apps.core.http.sorting import Sorting
from apps.core.http.views import AUTHENTICATED
from apps.core.permissions import ROLE_PERMISSIONS, Permission, Role
from apps.organizations import selectors
from apps.organizations import services as organizations
from apps.organizations.forms import InviteForm, LeaverForm, MemberForm
from apps.organizations.models import Invite, Membership

_MEMBERS_BY = {
    "person": lambda row: row[0].user.get_full_name().casefold(),
    "role": lambda row: Role.values.index(row[0].role),
    "since": lambda row: row[0].created_at,
}


class Members(FormMixin, OrganizationPage):
    """Members and invites in one list, with the form that invites."""

    permission = {"GET": Permission.MEMBERS_READ, "POST": Permission.MEMBERS_INVITE}
    step_up = frozenset({"POST"})
    section = "members"
    template_name = "organizations/members.html"
    form_class = InviteForm

    def form_arguments(self) -> dict[str, Any]:
        """Offer the roles that the person could give."""
        return {"own": self.actor.permissions}

    def context(self) -> dict[str, Any]:
        """Return the list, members by role and name, invites after them."""
        people = selectors.people_of(self.actor, now=self.now)
        sorting = Sorting(self.request, _MEMBERS_BY)
        return {
            "people": replace(people, members=sorting.of(people.members)),
            "sorting": sorting,
            "roles": [(role.label, organizations.ROLE_PURPOSES[role]) for role in Role],
        }

    def act(self, form: Any) -> HttpResponse:
        """Invite the address."""
        made = organizations.invite(
            actor=self.actor,
            organization=self.organization,
            email=form.cleaned_data["email"],
            role=Role(form.cleaned_data["role"]),
            now=self.now,
        )
        message = _("The invite to %(email)s is on its way.") % {"email": made.email}
        return self.done(message, to=self.url("members"))


class _OneMember(FormMixin, OrganizationPage):
    """A page of one member."""

    section = "members"

    @property
    def member(self) -> Membership:
        """The member of the path; of another organization it does not exist."""
        rows = Membership.objects.visible_to(self.actor).select_related("user")
        return get_object_or_404(rows, pk=self.kwargs["member_id"])

    def back_url(self) -> str:
        """Return the list."""
        return self.url("members")


class Member(_OneMember):
    """One member: role, suspension and end."""

    permission = {"GET": Permission.MEMBERS_READ, "POST": Permission.MEMBERS_MANAGE}
    step_up = frozenset({"POST"})
    template_name = "organizations/member.html"
    form_class = MemberForm

    def form_arguments(self) -> dict[str, Any]:
        """Show the member as they are."""
        return {"member": self.member, "own": self.actor.permissions}

    def context(self) -> dict[str, Any]:
        """Say whether this person may change that one, and offer the way out."""
        member = self.member
        may_change = (
            self.actor.can(Permission.MEMBERS_MANAGE)
            and ROLE_PERMISSIONS[Role(member.role)] <= self.actor.permissions
        )
        is_self = member.user_id == self.actor.id
        return {
            "member": member,
            "state": selectors.state_of(member, now=self.now),
            "is_self": is_self,
            "may_change": may_change,
            "leaver_form": LeaverForm(**_leaver(member, self.now)) if may_change else None,
        }

    def act(self, form: Any) -> HttpResponse:
        """Change what was changed in the form."""
        changes = form.changes()
        changed = organizations.change_member(
            actor=self.actor,
            membership=self.member,
            role=Role(changes["role"]) if "role" in changes else None,
            suspended=changes.get("suspended"),
            expires_at=changes.get("until"),
            keep_expiry="until" not in changes,
            now=self.now,
        )
        message = _("%(name)s is changed.") % {"name": changed.user.get_full_name()}
        return self.done(message, to=self.url("members"), undo=self.undo(form))


class RemoveMember(_OneMember):
    """Removing a member, with the choice of what becomes of their keys."""

    permission = Permission.MEMBERS_MANAGE
    step_up = frozenset({"POST"})
    template_name = "organizations/remove_member.html"
    form_class = LeaverForm

    def form_arguments(self) -> dict[str, Any]:
        """Offer the members who could take the keys, and ask for the name of who leaves."""
        return _leaver(self.member, self.now)

    def context(self) -> dict[str, Any]:
        """Say who it is."""
        return {"member": self.member}

    def act(self, form: Any) -> HttpResponse:
        """Remove the member."""
        member = self.member
        name = member.user.get_full_name()
        organizations.remove_member(actor=self.actor, membership=member, keys_to=form.heir, now=self.now)
        return self.done(_("%(name)s is no member any more.") % {"name": name}, to=self.url("members"))


def _leaver(member: Membership, now: datetime) -> dict[str, Any]:
    return {"heirs": _heirs(member, now), "name": member.user.get_full_name()}


def _heirs(member: Membership, now: datetime) -> list[Membership] | None:
    return selectors.heirs_of(member, now=now) if selectors.has_keys(member, now=now) else None


class Leave(FormMixin, OrganizationPage):
    """Leaving the organization oneself."""

    permission = AUTHENTICATED
    section = "members"
    template_name = "organizations/leave.html"
    form_class = LeaverForm

    def form_arguments(self) -> dict[str, Any]:
        """Offer the members who could take the keys, and ask for the name of what is left."""
        return {
            "heirs": _heirs(self._own(), self.now),
            "label": _("Your API keys"),
            "name": self.organization.name,
        }

    def act(self, form: Any) -> HttpResponse:
        """End the person's own membership."""
        organizations.remove_member(actor=self.actor, membership=self._own(), keys_to=form.heir, now=self.now)
        return self.done(_("You left %(name)s.") % {"name": self.organization.name}, to=reverse("home"))

    def _own(self) -> Membership:
        own = Membership.objects.visible_to(self.actor).select_related("user")
        return own.get(user_id=self.actor.person_id)


class InviteAction(OrganizationPage):
    """Sending an invite again, or taking it back."""

    permission = Permission.MEMBERS_INVITE
    step_up = frozenset({"POST"})
    section = "members"

    def post(self, request: HttpRequest, invite_id: UUID, **_path: Any) -> HttpResponse:
        """Do what the pressed button says."""
        invite = get_object_or_404(Invite.objects.visible_to(self.actor), pk=invite_id)
        if request.POST.get("do") == "resend":
            organizations.resend(actor=self.actor, invite=invite, now=self.now)
            return self.done(_("A new link is on its way to %(email)s.") % {"email": invite.email})
        organizations.revoke_invite(actor=self.actor, invite=invite, now=self.now)
        return self.done(_("The invite to %(email)s is taken back.") % {"email": invite.email})

    def back_url(self) -> str:
        """Return the list."""
        return self.url("members")
