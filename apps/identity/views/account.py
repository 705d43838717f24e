"""The pages of one's own account: profile, security, enrolment of a second factor, deletion."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from allauth.account.adapter import get_adapter
from allauth.socialaccount.views import connections
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _

from apps.core.http.pages import FormMixin, Page
from apps.core.http.views import AUTHENTICATED
from apps.identity import selectors, services, sessions
from apps.identity.forms import DeletionForm, ProfileForm
from apps.identity.models import User

# Where somebody was going who had to set up a second factor first.
ENROLMENT_NEXT_KEY = "enrolment_next"


class Profile(FormMixin, Page):
    """Name and address."""

    permission = {"GET": AUTHENTICATED, "POST": AUTHENTICATED}
    section = "profile"
    template_name = "identity/profile.html"
    form_class = ProfileForm

    def form_arguments(self) -> dict[str, Any]:
        """Begin with the name as it is."""
        person = self.request.user
        assert isinstance(person, User), "the permission lets nobody else in"
        return {"initial": {"name": person.name}}

    def act(self, form: Any) -> HttpResponse:
        """Change the name."""
        services.change_profile(actor=self.actor, name=form.cleaned_data["name"])
        return self.done(_("Your profile is changed."), to=reverse("profile"), undo=self.undo(form))


class Security(Page):
    """What protects the account, and where it is logged in."""

    permission = {"GET": AUTHENTICATED}
    section = "security"
    template_name = "identity/security.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.render(
            {
                "factors": selectors.factors_of(self.actor.person_id),
                "sessions": sessions.sessions_of(request),
                "programs": selectors.programs_of(self.actor.person_id, now=self.now),
                "providers": selectors.providers_of(request),
            }
        )


class Providers(Page):
    """Where allauth disconnects a login provider; what is connected stands on the security page."""

    permission = {"GET": AUTHENTICATED, "POST": AUTHENTICATED}

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponseRedirect(reverse("security"))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Disconnect one; allauth refuses the last way to log in."""
        response: HttpResponse = connections(request)
        if response.status_code != HTTPStatus.FOUND:
            messages.error(request, _("This is the only way to log in. Set a password first."))
        return (
            HttpResponseRedirect(reverse("security")) if response.status_code == HTTPStatus.OK else response
        )


class EndSession(Page):
    """Logging out somewhere else."""

    permission = {"POST": AUTHENTICATED}

    def post(self, request: HttpRequest, session_id: int) -> HttpResponse:
        """End one session."""
        services.end_session(actor=self.actor, session_id=session_id)
        return self.done(_("That browser is logged out."), to=reverse("security"))


class EndOtherSessions(Page):
    """Logging out everywhere else, browsers and programs."""

    permission = {"POST": AUTHENTICATED}

    def post(self, request: HttpRequest) -> HttpResponse:
        """End every login but this one."""
        services.end_other_logins(
            actor=self.actor, session_key=request.session.session_key or "", now=self.now
        )
        return self.done(_("You are logged out everywhere else."), to=reverse("security"))


class Enrol(Page):
    """The choice of a second factor, for somebody who needs one to go on."""

    permission = {"GET": AUTHENTICATED}
    template_name = "identity/enrol.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Remember where to go afterwards; who has a factor already goes there at once."""
        target = request.GET.get("next", "")
        is_safe = url_has_allowed_host_and_scheme(target, allowed_hosts=None)
        request.session[ENROLMENT_NEXT_KEY] = target if is_safe else ""
        if selectors.has_second_factor(request.user):
            return _go_on(request)
        return self.render()


class Enrolled(Page):
    """Where allauth leads after a change of factors: on to where somebody was going, or to the security page."""

    permission = {"GET": AUTHENTICATED}

    def get(self, request: HttpRequest) -> HttpResponse:
        if selectors.has_second_factor(request.user):
            return _go_on(request)
        return HttpResponseRedirect(reverse("security"))


class Delete(FormMixin, Page):
    """Deleting one's account."""

    permission = {"GET": AUTHENTICATED, "POST": AUTHENTICATED}
    step_up = frozenset({"POST"})
    template_name = "identity/delete.html"
    form_class = DeletionForm

    def form_arguments(self) -> dict[str, Any]:
        """Ask for the address of this account."""
        return {"email": self.actor.label}

    def act(self, form: Any) -> HttpResponse:
        """Delete it, and say so on the page that everybody sees."""
        services.delete_account(actor=self.actor, now=self.now)
        get_adapter().logout(self.request)
        messages.success(self.request, _("Your account is deleted."))
        return HttpResponseRedirect(reverse("account_login"))


def _go_on(request: HttpRequest) -> HttpResponse:
    target = request.session.pop(ENROLMENT_NEXT_KEY, "")
    return HttpResponseRedirect(target or reverse("security"))
