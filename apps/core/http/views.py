"""The base of every API view: who asks, for which organization, and whether they may, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Protocol, cast
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from rest_framework import request as drf
from rest_framework.generics import GenericAPIView
from rest_framework.mixins import ListModelMixin
from rest_framework.renderers import BaseRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.actor import Actor, ActorKind
from apps.core.errors import InvalidRequest, NotFound, PermissionDenied, StepUpRequired, Unauthenticated
from apps.core.http.filters import FilterBackend
from apps.core.http.pagination import CursorPagination
from apps.core.http.rendering import JSONRenderer
from apps.core.permissions import IntegrationScope, Permission


class Access(Enum):
    """What a view asks for instead of a permission."""

    PUBLIC = "public"
    AUTHENTICATED = "authenticated"


class RateClass(Enum):
    """How requests to a view are counted."""

    PLAN = "plan"
    INGESTION = "ingestion"
    EXEMPT = "exempt"


PUBLIC = Access.PUBLIC
AUTHENTICATED = Access.AUTHENTICATED

# One permission, or several of which any will do.
Rule = Permission | IntegrationScope | frozenset[Permission | IntegrationScope] | Access

STEP_UP_LASTS = timedelta(minutes=10)
ANONYMOUS = Actor(kind=ActorKind.USER, id=None, label="anonymous")


class Request(drf.Request):
    """A request with the actor behind it; `ANONYMOUS` where nobody sent a credential to a public view."""

    actor: Actor


class OrganizationResolver(Protocol):
    """What settings.ORGANIZATION_RESOLVER names.

    memberships: those of the person, where they were loaded for this request.
    """

    def __call__(
        self,
        *,
        actor: Actor,
        path: str | None,
        header: str | None,
        owner: str | None,
        place: Any = None,
        memberships: Sequence[Any] = (),
    ) -> tuple[Any, Actor] | None: ...


class RequestLimiter(Protocol):
    """The module that settings.REQUEST_LIMITER names; each function counts a request or raises a 429."""

    def limit_anonymous(self, request: HttpRequest) -> None: ...
    def limit_failed_credential(self, request: HttpRequest) -> None: ...
    def limit_actor(self, request: HttpRequest, actor: Actor, rate_class: RateClass) -> None: ...


@cache
def _limiter() -> RequestLimiter:
    return cast("RequestLimiter", import_module(settings.REQUEST_LIMITER))


@cache
def _resolver() -> OrganizationResolver:
    return cast("OrganizationResolver", import_string(settings.ORGANIZATION_RESOLVER))


class ApiView(APIView):
    """A view that machines call. Checks: rate 429, credential 401, organization 404, its status 403, permission 403,
    step-up 403.

    permission: a Rule, or one for each method. HEAD counts as GET; OPTIONS needs nothing.
    people_only: methods that no key or integration may use, whatever its scopes.
    step_up: methods for which a person must have proved themselves within ten minutes; keys need not.
    rate_class: which rate counts the requests.
    refusals: statuses of errors that only this view answers with, for the OpenAPI document.
    """

    permission: ClassVar[Rule | Mapping[str, Rule]]
    people_only: ClassVar[frozenset[str]] = frozenset()
    step_up: ClassVar[frozenset[str]] = frozenset()
    rate_class: ClassVar[RateClass] = RateClass.PLAN
    refusals: ClassVar[frozenset[int]] = frozenset()

    request: Request
    actor: Actor
    organization: Any = None

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        wrapped = super().initialize_request(request, *args, **kwargs)
        wrapped.__class__ = Request
        return cast("Request", wrapped)

    def perform_content_negotiation(
        self,
        request: drf.Request,
        force: bool = False,
    ) -> tuple[BaseRenderer, str]:
        return JSONRenderer(), JSONRenderer.media_type  # JSON is all there is, whatever Accept says.

    def initial(self, request: drf.Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "OPTIONS":
            return
        rule = self.rule_for(request.method or "GET")
        self._set_actor(cast("Actor | None", request.user) or ANONYMOUS)
        if self.actor is ANONYMOUS:
            self._count_anonymous()
            if rule is not PUBLIC:
                raise Unauthenticated
        elif self.actor.kind == ActorKind.USER:
            # Which organization counts is known afterwards; one that cannot be had counts for the person.
            try:
                self.resolve_organization()
            finally:
                self._count_actor()
        else:
            self._count_actor()
            self.resolve_organization()
        self._check_permission(rule)
        if request.method in self.people_only:
            self.require_person()
        if request.method in self.step_up:
            self.require_step_up()

    def perform_authentication(self, request: drf.Request) -> None:
        if self.rate_class is RateClass.EXEMPT:
            request._request.rate_limit_exempt = True  # type: ignore[attr-defined]  # The limits read it.
        try:
            super().perform_authentication(request)
        except Unauthenticated:
            if self.rate_class is not RateClass.EXEMPT:
                _limiter().limit_failed_credential(request._request)
            raise

    def require_person(self) -> None:
        """Raise PermissionDenied unless a person asks with their own access token."""
        if self.actor.kind != ActorKind.USER:
            raise PermissionDenied(_("Only a person may do that, not a key."))

    def require_step_up(self) -> None:
        """Raise StepUpRequired if a person asks who has not proved themselves within ten minutes."""
        if self.actor.kind != ActorKind.USER:
            return
        proved_at = self.actor.stepped_up_at
        if proved_at is None or timezone.now() - proved_at >= STEP_UP_LASTS:
            raise StepUpRequired

    def rule_for(self, method: str) -> Rule:
        """Return what a method asks for; a view that says nothing is a bug that a test finds."""
        if isinstance(self.permission, Mapping):
            method = "GET" if method == "HEAD" else method
            # A method without a rule has no handler either, and answers 405 to whoever may know.
            return self.permission.get(method, AUTHENTICATED)
        return self.permission

    def resolve_organization(self) -> None:
        """Check the organization that the credential itself belongs to, if it does."""
        if self.actor.organization_id:
            self._resolve(path=None)

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        return Response(status=204)

    def finalize_response(self, request: drf.Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        # Whatever is behind a credential must not stay in any cache on the way.
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
        return super().finalize_response(request, response, *args, **kwargs)

    def _count_anonymous(self) -> None:
        if self.rate_class is not RateClass.EXEMPT:
            _limiter().limit_anonymous(self.request._request)

    def _count_actor(self) -> None:
        if self.rate_class is not RateClass.EXEMPT:
            _limiter().limit_actor(self.request._request, self.actor, self.rate_class)

    def _resolve(self, *, path: str | None) -> None:
        headers = self.request.headers
        found = _resolver()(
            actor=self.actor,
            path=path,
            header=headers.get("X-Org-Slug") or None,
            owner=headers.get("X-Owner-ID") or None,
            place=getattr(self.request.auth, "place", None),
        )
        if found is not None:
            self.organization, actor = found
            self._set_actor(actor)

    def _set_actor(self, actor: Actor) -> None:
        self.actor = self.request.actor = actor

    def _check_permission(self, rule: Rule) -> None:
        if isinstance(rule, Access):
            return
        wanted = rule if isinstance(rule, frozenset) else frozenset({rule})
        if not any(self.actor.can(permission) for permission in wanted):
            names = sorted(str(permission) for permission in wanted)
            raise PermissionDenied(
                _("This needs the permission %(names)s.") % {"names": _(" or ").join(names)},
                permissions=names,
            )


class OptionalOrganizationView(ApiView):
    """A view that answers for the organization of the request if there is one, and for nobody else if not."""

    def resolve_organization(self) -> None:
        self._resolve(path=self.kwargs.get("slug"))


class OrganizationView(ApiView):
    """A view of one organization: that of the path, the key's own, the header's, or the user's default."""

    def resolve_organization(self) -> None:
        self._resolve(path=self.kwargs.get("slug"))
        if self.organization is None:
            raise InvalidRequest(_("Name the organization with X-Org-Slug."))

    @property
    def organization_id(self) -> UUID:
        """The organization of the request."""
        assert self.actor.organization_id is not None, "resolved before any handler runs"
        return self.actor.organization_id


class ListMixin(ListModelMixin, GenericAPIView[Any]):
    """A list: `get_queryset`, `serializer_class` of a row, `ordering` with a unique last key, filters."""

    ordering: ClassVar[tuple[str, ...]] = ("-created_at", "-id")
    # What `sort` may name, each with its total order; `-name` reverses it.
    sortable: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    filterset_class: ClassVar[Any] = None
    filter_backends = (FilterBackend,)
    pagination_class = CursorPagination

    def get(self, request: drf.Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)

    def list(self, request: drf.Request, *args: Any, **kwargs: Any) -> Response:
        rows = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        assert rows is not None, "every list has pages"
        return self.get_paginated_response(self.render_rows(rows))

    def render_rows(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Return a page's rows as data; a list that needs more than each row by itself overrides it."""
        data: Sequence[Any] = self.get_serializer(rows, many=True).data
        return data


class ListView(ListMixin, OrganizationView):
    """A list of one organization's rows."""


class UnknownPath(ApiView):
    """Whatever path under the API has no view: the error body instead of a page."""

    permission = PUBLIC
    authentication_classes = ()
    schema = None

    def initial(self, request: drf.Request, *args: Any, **kwargs: Any) -> None:
        raise NotFound
