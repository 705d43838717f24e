"""Pages with which a person answers an invite: by the link of its mail, or among their own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from apps.core.http.pages import Page
from apps.core.http.views import ANONYMOUS, AUTHENTICATED, PUBLIC
from apps.identity import selectors as identity
from apps.organizations import selectors
from apps.organizations import services as organizations
from apps.organizations.models import Invite

ACCEPT = "accept"


class _AnswerPage(Page):
    """A page that takes an answer; what is not open to the person does not exist."""

    def answer(self, invite: Invite) -> HttpResponse:
        """Do what the pressed button says."""
        if self.request.POST.get("answer") == ACCEPT:
            membership = organizations.accept_invite(actor=self.actor, invite=invite, now=self.now)
            organizations.choose_default(
                actor=self.actor,
                user_id=self.actor.person_id,
                organization=membership.organization,
                now=self.now,
            )
            message = _("You are a member of %(name)s now.") % {"name": invite.organization.name}
            slug = membership.organization.slug
            return self.done(message, to=reverse("overview", kwargs={"slug": slug}))
        organizations.decline_invite(actor=self.actor, invite=invite, now=self.now)
        message = _("You declined. %(name)s may invite you again.") % {"name": invite.organization.name}
        return self.done(message, to=reverse("my-invites"))


class ByToken(_AnswerPage):
    """The invite behind the link of a mail; a wrong person sees the same page as of no invite."""

    permission = {"GET": PUBLIC, "POST": AUTHENTICATED}
    template_name = "organizations/invite.html"
    missing_template_name = "organizations/invite_gone.html"

    def get(self, request: HttpRequest, **path: Any) -> HttpResponse:
        """Show the invite, changing nothing; signed out, its organization's name only."""
        invite = organizations.find_by_token(path["token"], now=self.now)
        if self.actor is ANONYMOUS:
            shown = {"name": invite.organization.name, "path": request.path}
            return self.render(shown, template="organizations/invite_signed_out.html")
        organizations.open_to(actor=self.actor, invite=invite, now=self.now)
        return self.render({"invite": invite})

    def post(self, request: HttpRequest, **path: Any) -> HttpResponse:
        """Accept or decline."""
        return self.answer(organizations.find_by_token(path["token"], now=self.now))

    def back_url(self) -> str:
        """Return the page of the person's invites, where a refusal is read."""
        return reverse("my-invites")


class Received(Page):
    """The open invites to the person's verified addresses."""

    permission = AUTHENTICATED
    template_name = "organizations/my_invites.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.render({"invites": selectors.received_invites(self.actor.person_id, now=self.now)})


class AnswerReceived(_AnswerPage):
    """Answering one of them."""

    permission = AUTHENTICATED

    def post(self, request: HttpRequest, invite_id: UUID) -> HttpResponse:
        """Accept or decline."""
        own = Invite.objects.received_by(identity.verified_addresses(self.actor.person_id), self.now)
        return self.answer(get_object_or_404(own, pk=invite_id))

    def back_url(self) -> str:
        """Return the page of the person's invites."""
        return reverse("my-invites")
