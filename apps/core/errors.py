"""Refusals: every service raises a `DomainError`, and every interface shows its message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class DomainError(Exception):
    """A refusal with a stable code, an HTTP status, a message for people and details for programs.

    Subclasses stand beside the service that raises them. Keyword arguments become `details`; they must be JSON.
    """

    code: ClassVar[str] = "conflict"
    http_status: ClassVar[int] = 409
    default_message: ClassVar[str | Promise] = _("The request conflicts with the current state.")

    def __init__(self, message: str | Promise | None = None, **details: Any) -> None:
        self.message = message if message is not None else self.default_message
        self.details = details
        super().__init__(str(self.message))

    def __str__(self) -> str:
        return str(self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """What is wrong with one field; `path` is dotted, such as `items.0.quantity`."""

    path: str
    code: str
    message: str


class InvalidRequest(DomainError):
    """The request cannot be read: malformed JSON, a bad cursor, a bad header."""

    code, http_status = "invalid_request", 400
    default_message = _("The request cannot be read.")


class Unauthenticated(DomainError):
    """No credential, or one that does not hold; `code` says which."""

    code, http_status = "token_missing", 401
    default_message = _("Send a credential: Authorization: Bearer …, or X-API-Key.")


class PermissionDenied(DomainError):
    """The credential holds, but lacks the permission."""

    code, http_status = "insufficient_permissions", 403
    default_message = _("This credential is not allowed to do that.")


class StepUpRequired(PermissionDenied):
    """The person must prove themselves again (`/auth/step-up`); what was shown is more than ten minutes old."""

    code = "step_up_required"
    default_message = _("Confirm that it is you, then try again.")


class NotFound(DomainError):
    """No such row for this actor; another tenant's row looks the same."""

    code, http_status = "not_found", 404
    default_message = _("Nothing was found here.")


class Conflict(DomainError):
    """The current state does not allow it."""


class ValidationFailed(DomainError):
    """The request can be read, but fields are wrong; each is named."""

    code, http_status = "validation_error", 422
    default_message = _("Some fields are wrong.")

    def __init__(self, message: str | Promise | None = None, *, fields: Sequence[FieldError] = ()) -> None:
        self.fields = tuple(fields)
        rows = [{"path": field.path, "code": field.code, "message": field.message} for field in fields]
        super().__init__(message, fields=rows)


class Unavailable(DomainError):
    """Something that the answer depends on is down; nothing was written."""

    code, http_status = "unavailable", 503
    default_message = _("The service is not available right now. Try again in a moment.")
