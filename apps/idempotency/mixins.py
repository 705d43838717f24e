"""What makes a view's mutations happen once per idempotency key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from django.db import OperationalError, transaction
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import InvalidRequest
from apps.core.http.errors import exception_handler, problem_of
from apps.core.http.parsing import parse_json
from apps.core.http.rendering import render_json
from apps.core.http.views import ApiView
from apps.idempotency import services
from apps.idempotency.models import StoredAnswer
from apps.idempotency.services import Scope

MUTATIONS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ATTEMPTS = 3
_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"
_REFUSALS_KEPT = frozenset({HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})
_HEADERS_KEPT = ("Location", "ETag")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Handler = Callable[..., HttpResponseBase]


class IdempotentMixin(ApiView):
    """Put before the view class. Owns the transaction of each mutation; with a key, answers a repetition.

    Permission is checked first every time. Kept are 2xx and refusals that are facts (402, 404, 409); what a
    correction or another try could change is not.
    """

    idempotency_required: ClassVar[bool] = False

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        method = (request.method or "").upper()
        handler = getattr(self, method.lower(), None)
        if method in MUTATIONS and handler is not None:
            setattr(self, method.lower(), partial(self._handle_once, handler))

    def mask_replay(self, data: Any) -> Any:
        """Return the answer as it may be kept; a view that answers with a secret masks it here."""
        return data

    def _handle_once(self, handler: Handler, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        key = key_of(request)
        if key is None:
            if self.idempotency_required:
                raise services.KeyRequired
            return _retried(partial(handler, request, *args, **kwargs))
        scope = Scope(
            organization_id=self.actor.organization_id,
            principal=f"{self.actor.kind}:{self.actor.id}",
            key=key,
        )
        fingerprint = fingerprint_of(request)
        return _retried(
            partial(self._claim_and_handle, scope, fingerprint, handler, request, *args, **kwargs)
        )

    def _claim_and_handle(
        self, scope: Scope, fingerprint: bytes, handler: Handler, request: Request, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        if stored := services.claim(scope, fingerprint):
            return _replay(stored)
        try:
            with transaction.atomic():  # Undone alone when the refusal is kept.
                response = handler(request, *args, **kwargs)
        except Exception as error:
            problem = problem_of(error)
            if problem is None or problem.status not in _REFUSALS_KEPT:
                raise
            response = exception_handler(error, self.get_exception_handler_context())
        if isinstance(response, Response) and (
            response.status_code < 300 or response.status_code in _REFUSALS_KEPT
        ):
            data = self.mask_replay(response.data)
            services.store(
                scope,
                fingerprint,
                status=response.status_code,
                headers={name: response[name] for name in _HEADERS_KEPT if name in response},
                body=b"" if data is None else render_json(data),
                now=timezone.now(),
            )
        return response


class AttemptMixin(IdempotentMixin):
    """For mutations that call somebody else: what is meant is committed first, the call is made outside of it.

    The handler returns `self.attempt(begin, finish)`. A request repeated while its outcome is unknown finishes the
    same attempt; one whose outcome is known gets the stored answer.
    """

    idempotency_required = True
    refusals = frozenset({402, 502, 504})

    def _handle_once(self, handler: Handler, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return handler(request, *args, **kwargs)

    def attempt(
        self, request: Request, begin: Callable[[], UUID], finish: Callable[[UUID], Response]
    ) -> HttpResponseBase:
        """Write the attempt with `begin` and commit it, then call and answer with `finish`."""
        key = key_of(request)
        if key is None:
            raise services.KeyRequired
        scope = Scope(
            organization_id=self.actor.organization_id,
            principal=f"{self.actor.kind}:{self.actor.id}",
            key=key,
        )
        found = self._begin_once(scope, fingerprint_of(request), begin)
        if isinstance(found, StoredAnswer):
            return _replay(found)
        try:
            response = finish(found)
        except Exception as error:
            problem = problem_of(error)
            if problem is None or problem.status not in _REFUSALS_KEPT or "retry_after" in problem.details:
                raise
            response = exception_handler(error, self.get_exception_handler_context())
        data = self.mask_replay(response.data)
        services.finish_attempt(
            scope, status=response.status_code, body=b"" if data is None else render_json(data)
        )
        return response

    def _begin_once(self, scope: Scope, fingerprint: bytes, begin: Callable[[], UUID]) -> StoredAnswer | UUID:
        found: list[StoredAnswer | UUID] = []

        def work() -> HttpResponseBase:
            found.clear()
            stored = services.claim(scope, fingerprint)
            if stored is None:
                attempt_id = begin()
                services.store_attempt(scope, fingerprint, attempt_id=attempt_id, now=timezone.now())
                found.append(attempt_id)
            else:
                found.append(stored if stored.status or stored.attempt_id is None else stored.attempt_id)
            return HttpResponse()

        _retried(work)
        return found[0]


def key_of(request: Request) -> str | None:
    """Return the idempotency key of a request, from either header; both must agree."""
    texts = {
        text.strip().strip('"')
        for name in ("X-Idempotency-Key", "Idempotency-Key")
        if (text := request.headers.get(name)) is not None
    }
    if not texts:
        return None
    if len(texts) > 1:
        raise InvalidRequest(_("X-Idempotency-Key and Idempotency-Key differ. Send one."))
    key = texts.pop()
    if not _KEY.fullmatch(key):
        raise InvalidRequest(_("An idempotency key has 1 to 255 printable ASCII characters, without spaces."))
    return key


def fingerprint_of(request: Request) -> bytes:
    """Return what makes a request the same: method, path, query and what the body says, however it is spelled."""
    body = request._request.body
    try:
        canonical = msgspec.json.encode(parse_json(body), order="sorted") if body else b""
    except InvalidRequest:
        canonical = body  # The handler will say what is wrong with it.
    parts = [request.method or "", request._request.get_full_path()]
    return hashlib.sha256("\n".join(parts).encode() + b"\n" + canonical).digest()


def _replay(stored: StoredAnswer) -> HttpResponse:
    response = HttpResponse(
        bytes(stored.body), status=stored.status, content_type="application/json", headers=stored.headers
    )
    response["Idempotent-Replayed"] = "true"
    return response


def _retried(work: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    """Run work in a transaction, again if PostgreSQL chose it as the victim of a conflict."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with transaction.atomic():
                return work()
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") not in {_SERIALIZATION_FAILURE, _DEADLOCK}:
                raise
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")
