"""Pages outside of one organization: the way in, switching, and making another."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from apps.core.http import navigation
from apps.core.http.pages import FormMixin, Page
from apps.core.http.views import AUTHENTICATED
from apps.core.permissions import ROLE_PERMISSIONS, Role
from apps.identity.models import User
from apps.organizations import selectors
from apps.organizations import services as organizations
from apps.organizations.forms import NewOrganizationForm


class Home(Page):
    """The way in: the default organization, or else the page that makes one."""

    permission = AUTHENTICATED

    def get(self, request: HttpRequest) -> HttpResponse:
        memberships = selectors.memberships_of(self.actor.person_id)
        chosen = sorted(memberships, key=lambda row: not row.is_default)
        if not chosen:
            return HttpResponseRedirect(reverse("new-organization"))
        return HttpResponseRedirect(reverse("overview", kwargs={"slug": chosen[0].organization.slug}))


class Switch(Page):
    """Choosing the organization to work in."""

    permission = AUTHENTICATED

    def post(self, request: HttpRequest) -> HttpResponse:
        """Go to an organization and make it the one that the next login opens.

        The person stays in the section that they were in, if their role there sees it.
        """
        organization = organizations.resolve_organization(request.POST.get("organization", ""))
        chosen = organizations.choose_default(
            actor=self.actor, user_id=self.actor.person_id, organization=organization, now=self.now
        )
        own = ROLE_PERMISSIONS[Role(chosen.role)]
        route = navigation.route_of(request.POST.get("section", ""), permissions=own)
        return self.done(to=reverse(route or "overview", kwargs={"slug": organization.slug}))


class NewOrganization(FormMixin, Page):
    """Making an organization that one owns."""

    permission = AUTHENTICATED
    template_name = "organizations/new.html"
    form_class = NewOrganizationForm

    def context(self) -> dict[str, Any]:
        """Return the invites that may be what the person is here for."""
        return {"invites": selectors.received_invites(self.actor.person_id, now=self.now)}

    def act(self, form: Any) -> HttpResponse:
        """Make the organization and open it."""
        made = organizations.create_organization(
            actor=self.actor,
            name=form.cleaned_data["name"],
            slug=form.cleaned_data["slug"] or None,
            owner=User.objects.get(pk=self.actor.person_id),
            now=self.now,
        )
        organizations.choose_default(
            actor=self.actor, user_id=self.actor.person_id, organization=made, now=self.now
        )
        message = _("%(name)s is ready.") % {"name": made.name}
        return self.done(message, to=reverse("overview", kwargs={"slug": made.slug}))
