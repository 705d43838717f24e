"""The base of every page of the portal: who asks, for which organization, and whether they may, in this order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, QueryDict
from django.template.loader import select_template
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.module_loading import import_string
from django.utils.text import get_text_list
from django.utils.translation import gettext as _
from django.views import View

from apps.core.actor import Actor, ActorKind
from apps.core.errors import DomainError, NotFound, PermissionDenied, StepUpRequired
from apps.core.forms import add_refusal, in_words
from apps.core.http.address import client_address
from apps.core.http.sorting import RowOrder
from apps.core.http.views import ANONYMOUS, PUBLIC, STEP_UP_LASTS, Access, OrganizationResolver, Rule
from apps.core.permissions import roles_with

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SLICE_ROWS = 50


class PageRequest(HttpRequest):
    """A request of a page, with the actor behind it, the organization that it is about and the person's memberships."""

    actor: Actor
    organization: Any
    memberships: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What takes an action back: a form sent to a page, which checks as it checks anybody's."""

    url: str
    fields: Mapping[str, str]


@cache
def _named(setting: str) -> Callable[..., Any]:
    return cast("Callable[..., Any]", import_string(getattr(settings, setting)))


class Page(View):
    """A page outside of any organization. Checks: login, then step-up.

    permission: a Rule, or one for each method; outside of organizations PUBLIC or AUTHENTICATED.
    step_up: methods for which the person must have proved themselves within ten minutes.
    section: the key of the navigation's entry that is marked as current.
    missing_template_name: what says that there is nothing here.
    """

    permission: ClassVar[Rule | Mapping[str, Rule]]
    step_up: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = ""
    template_name: ClassVar[str] = ""
    missing_template_name: ClassVar[str] = "404.html"

    request: PageRequest
    actor: Actor = ANONYMOUS
    organization: Any = None
    now: datetime

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        self.now = timezone.now()
        self._set(self._person(), None)
        rule = self.rule_for(request.method or "GET")
        if self.actor is ANONYMOUS and rule is not PUBLIC:
            return redirect_to_login(request.get_full_path())
        try:
            response = self._answer(rule, *args, **kwargs)
        except StepUpRequired:
            response = _named("SESSION_STEP_UP")(self.request)
        except (NotFound, Http404):
            # Answered here, so that the development run shows the page that customers see.
            response = self.render(template=self.missing_template_name, status=404)
        except DomainError as error:
            response = self.refused(error)
        add_never_cache_headers(response)
        return response

    def rule_for(self, method: str) -> Rule:
        """Return what a method asks for; a method without a rule has no handler either."""
        if isinstance(self.permission, Mapping):
            return self.permission.get("GET" if method == "HEAD" else method, Access.AUTHENTICATED)
        return self.permission

    def render(
        self,
        context: Mapping[str, Any] | None = None,
        *,
        template: str | Sequence[str] = "",
        status: int = 200,
    ) -> HttpResponse:
        """Return the page whole, by its own template or another, such as what a step shows when it is done."""
        names = [template or self.template_name] if isinstance(template, str) else template
        shown = {"page": self, "now": self.now, "organization": self.organization, **(context or {})}
        return HttpResponse(select_template(names).render(shown, self.request), status=status)

    def refused(self, error: DomainError) -> HttpResponseBase:
        """Return what says in words why not: a page, or for an action the page it was taken on with a message."""
        if self.request.method in SAFE_METHODS or isinstance(error, PermissionDenied):
            names = [f"refusals/{error.code}.html", "refusals/refused.html"]
            roles = [str(role.label) for role in roles_with(error.details.get("permissions", ()))]
            shown = {"error": error, "roles": get_text_list(roles, _("or"))}
            return self.render(shown, template=names, status=error.http_status)
        messages.error(self.request, in_words(error))
        return HttpResponseRedirect(self.back_url())

    def done(self, message: str = "", *, to: str = "", undo: Undo | None = None) -> HttpResponse:
        """Return to a page after an action, by default the one that it was taken on, and say what happened.

        undo: what the message offers beside it, for an action that can be taken back whole.
        """
        if message:
            # Messages carry strings only; `feedback.undo` reads it where the message is shown.
            tags = json.dumps({"url": undo.url, "fields": dict(undo.fields)}) if undo else ""
            messages.success(self.request, message, extra_tags=tags)
        return HttpResponseRedirect(to or self.back_url())

    def back_url(self) -> str:
        """Return the page that an action was taken on, as its form says, or the first page."""
        target = self.request.POST.get("next", "")
        if target and url_has_allowed_host_and_scheme(target, allowed_hosts=None):
            return target
        return self.home_url()

    def home_url(self) -> str:
        """Return where to go when nothing else is known."""
        return reverse("home")

    def require_step_up(self) -> None:
        """Raise StepUpRequired unless the person has proved themselves within ten minutes."""
        proved_at: datetime | None = _named("SESSION_PROOF")(self.request)
        if proved_at is None or self.now - proved_at >= STEP_UP_LASTS:
            raise StepUpRequired

    def _answer(self, rule: Rule, *args: Any, **kwargs: Any) -> HttpResponseBase:
        assert isinstance(rule, Access), "only a page of an organization can ask for a permission"
        if self.request.method in self.step_up:
            self.require_step_up()
        return super().dispatch(self.request, *args, **kwargs)

    def _person(self) -> Actor:
        user = self.request.user
        if not user.is_authenticated:
            return ANONYMOUS
        address = client_address(self.request)
        return Actor(kind=ActorKind.USER, id=user.pk, label=user.get_username(), address=address)

    def _set(self, actor: Actor, organization: Any) -> None:
        self.actor = self.request.actor = actor
        self.organization = self.request.organization = organization


class OrganizationPage(Page):
    """A page of the organization whose slug is in the path; moments read in its time zone.

    Checks: login, organization 404, its status and MFA policy, permission, step-up. A retired slug leads to the
    current one.
    """

    def url(self, name: str, **arguments: Any) -> str:
        """Return the address of another page of this organization."""
        return reverse(name, kwargs={"slug": self.organization.slug, **arguments})

    def home_url(self) -> str:
        """Return the organization's first page."""
        return self.url("overview") if self.organization else super().home_url()

    @property
    def organization_id(self) -> UUID:
        """The organization of the page."""
        assert self.actor.organization_id is not None, "resolved before any handler runs"
        return self.actor.organization_id

    def _answer(self, rule: Rule, *args: Any, **kwargs: Any) -> HttpResponseBase:
        resolve = cast("OrganizationResolver", _named("ORGANIZATION_RESOLVER"))
        # The shell shows them all, so one query finds the organization too.
        self.request.memberships = _named("SHELL_MEMBERSHIPS")(self.actor.person_id)
        found = resolve(
            actor=self.actor,
            path=self.kwargs["slug"],
            header=None,
            owner=None,
            memberships=self.request.memberships,
        )
        assert found is not None, "the path names an organization"
        organization, actor = found
        self._set(actor, organization)
        if self.request.method in SAFE_METHODS and organization.slug != self.kwargs["slug"]:
            return HttpResponseRedirect(self._current_path())
        self._check_permission(rule)
        if self.request.method in self.step_up:
            self.require_step_up()
        with timezone.override(ZoneInfo(organization.timezone)):
            return View.dispatch(self, self.request, *args, **kwargs)

    def _check_permission(self, rule: Rule) -> None:
        if isinstance(rule, Access):
            return
        wanted = rule if isinstance(rule, frozenset) else frozenset({rule})
        if not any(self.actor.can(permission) for permission in wanted):
            raise PermissionDenied(permissions=sorted(str(permission) for permission in wanted))

    def _current_path(self) -> str:
        match = self.request.resolver_match
        assert match is not None, "a view answers to a route"
        path = reverse(match.view_name, kwargs={**match.kwargs, "slug": self.organization.slug})
        query = self.request.META.get("QUERY_STRING", "")
        return f"{path}?{query}" if query else path


if TYPE_CHECKING:
    _Mixed = Page
else:
    _Mixed = object


class FormMixin(_Mixed):
    """A page with one form: `form_class`, `act`, which calls one service, and `context` for the rest of the page."""

    form_class: ClassVar[type[forms.Form]]

    def form(self, data: QueryDict | None = None) -> forms.Form:
        """Return the form, bound to what was sent."""
        return self.form_class(data, **self.form_arguments())

    def form_arguments(self) -> dict[str, Any]:
        """Return further arguments of the form, such as `initial`."""
        return {}

    def context(self) -> dict[str, Any]:
        """Return what the template shows beside the form."""
        return {}

    def act(self, form: Any) -> HttpResponse:
        """Call the service and answer."""
        raise NotImplementedError

    def undo(self, form: Any) -> Undo | None:
        """Return what sends the form as it stood before the change, if anything in it was changed."""
        if not form.has_changed():
            return None
        fields: dict[str, str] = {}
        for bound in form:
            was = bound.field.prepare_value(bound.initial)
            if isinstance(bound.field.widget, forms.CheckboxInput):
                fields |= {bound.html_name: "on"} if was else {}
            else:
                fields[bound.html_name] = _only(bound.field.widget.format_value(was) or "")
        return Undo(url=self.request.path, fields=fields)

    def get(self, request: HttpRequest, *_args: Any, **_path: Any) -> HttpResponse:
        return self.render({"form": self.form(), **self.context()})

    def post(self, request: HttpRequest, *_args: Any, **_path: Any) -> HttpResponse:
        """Do it, or show the form again with what is wrong beside each field and what was sent still in it."""
        form = self.form(request.POST)
        if form.is_valid():
            try:
                return self.act(form)
            except (NotFound, StepUpRequired):
                raise
            except DomainError as refusal:
                add_refusal(form, refusal)
        return self.render({"form": form, **self.context()}, status=422)


def _only(value: str | Sequence[str]) -> str:
    """Return the one value of a widget; a choice of one is a list to Django."""
    return value if isinstance(value, str) else next(iter(value), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Some rows of a long list, newest first or as asked, and the addresses of those that follow and of the first."""

    rows: Sequence[Any]
    older: str
    newest: str
    is_by_time: bool = True


def slice_of(
    request: HttpRequest,
    rows: QuerySet[Any],
    *,
    size: int = SLICE_ROWS,
    order: RowOrder | None = None,
    among: QuerySet[Any] | None = None,
) -> Slice:
    """Return the rows after the one whose id is in `before`, by descending id: of version 7, so that is by time.

    order: another order. among: all rows that the person may see, where `rows` are those that a filter left: the last
    row of a page may since have left it.
    """
    query = request.GET.copy()
    order = order or RowOrder(request, {})
    before = _id(query.get("before", ""))
    following = order.after(rows, before, rows if among is None else among) if before else rows
    found = list(order.ordered(following)[: size + 1])
    query.pop("before", None)
    newest = f"?{query.urlencode()}"
    query["before"] = str(found[size - 1].pk) if len(found) > size else ""
    return Slice(
        rows=found[:size],
        older=f"?{query.urlencode()}" if query["before"] else "",
        newest=newest if before else "",
        is_by_time=not order.is_asked,
    )


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
