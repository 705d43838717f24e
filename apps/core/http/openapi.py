"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.actor import Actor, ActorKind
from apps.core.http.views import PUBLIC, Access, ApiView

PREFIX = "/api/v1/"
NOBODY = Actor(kind=ActorKind.SYSTEM, id=None, label="schema", organization_id=UUID(int=0))

_ERRORS = {
    "400": "The request cannot be read.",
    "401": "No credential, or one that does not hold.",
    "403": "The credential does not allow it.",
    "404": "Not found, or of another organization.",
    "422": "Fields are wrong; each is named.",
    "429": "Too many requests; Retry-After says after how many seconds the next is taken.",
    "500": "A bug on our side.",
    "503": "Something that the answer depends on is down.",
}
_HEADERS = {
    "X-Correlation-Id": ("string", "Quote it when you report a problem."),
    "X-RateLimit-Limit": ("integer", "Requests a minute of the tightest policy that counts."),
    "X-RateLimit-Remaining": ("integer", "Requests that would be taken at once now."),
    "X-RateLimit-Reset": ("integer", "Unix seconds at which all of them have grown back."),
}
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["code", "message", "correlation_id", "details", "detail", "error"],
    "properties": {
        "code": {"type": "string", "examples": ["not_found"]},
        "message": {"type": "string"},
        "correlation_id": {"type": "string"},
        "details": {"type": "object", "additionalProperties": True},
        "detail": {
            "description": "Compatibility alias: the message; on 422 a list of fields.",
            "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
        },
        "error": {
            "description": "Compatibility alias.",
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "code": {"type": "string"},
                "httpStatus": {"type": "integer"},
            },
        },
    },
}


class Schema(AutoSchema):
    """Describes our views: their permission, and whether they need a credential."""

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        if isinstance(self.view, ApiView):  # Lists are asked for their rows' model, outside of any request.
            self.view.actor = NOBODY
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        return operation

    def get_auth(self) -> list[dict[str, Any]]:
        credentials: list[dict[str, Any]] = super().get_auth()
        needed = [entry for entry in credentials if entry]
        return [{}, *needed] if self._rule() is PUBLIC else needed

    def get_description(self) -> str:  # type: ignore[override]  # As drf-spectacular's own.
        rule = self._rule()
        description: str = super().get_description()
        if isinstance(rule, Access):
            return description
        names = sorted(str(one) for one in rule) if isinstance(rule, frozenset) else [str(rule)]
        needs = _("Permission: %(names)s.") % {"names": _(" or ").join(f"`{name}`" for name in names)}
        return f"{description}\n\n{needs}".strip()

    def _rule(self) -> Any:
        return self.view.rule_for(self.method) if isinstance(self.view, ApiView) else PUBLIC


@extend_schema(exclude=True)
class Document(ApiView):
    """The OpenAPI document; readable by browsers of any origin, as it holds nothing secret."""

    permission = PUBLIC
    authentication_classes = ()

    def get(self, request: Request) -> Response:
        document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]  # As drf-spectacular's own.
        return Response(
            document, headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"}
        )


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """Show the document with Swagger UI, bundled."""
    return render(request, "core/api_docs.html")


def keep_canonical_paths(endpoints: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Drop the aliases: every view is served under several paths and described once."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith(PREFIX)]


def document_errors(result: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """Add to every operation the error answers and the headers that all have in common."""
    components = result.setdefault("components", {})
    components.setdefault("schemas", {})["Error"] = _ERROR_SCHEMA
    components.setdefault("headers", {}).update(
        {
            name: {"description": description, "schema": {"type": kind}}
            for name, (kind, description) in _HEADERS.items()
        }
    )
    header = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    components["responses"] = {
        f"Error{status}": {
            "description": description,
            "headers": header,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, description in _ERRORS.items()
    }
    for methods in result.get("paths", {}).values():
        for operation in methods.values():
            if not isinstance(operation, dict) or "responses" not in operation:
                continue
            answers = operation["responses"]
            for answer in answers.values():
                answer.setdefault("headers", {}).update(header)
            for status in _ERRORS:
                answers.setdefault(status, {"$ref": f"#/components/responses/Error{status}"})
    return result
