"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

from functools import partial
from typing import Any, cast
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import DecimalField

from apps.core.actor import Actor, ActorKind
from apps.core.http.errors import PROBLEM_JSON
from apps.core.http.views import PUBLIC, Access, ApiView, OptionalOrganizationView, OrganizationView

PREFIX = "/api/v1/"
NOBODY = Actor(kind=ActorKind.SYSTEM, id=None, label="schema", organization_id=UUID(int=0))

_ERRORS = {
    "400": "The request cannot be read.",
    "401": "No credential, or one that does not hold.",
    "402": "The credit, or the card, does not cover it.",
    "403": "The credential does not allow it.",
    "404": "Not found, or of another organization.",
    "409": "The current state does not allow it; `code` says why.",
    "412": "The thing has changed since the ETag was read.",
    "413": "The body is too large.",
    "415": "The body is of another type than those listed.",
    "422": "Fields are wrong; each is named.",
    "428": "If-Match is missing.",
    "429": "Too many requests; Retry-After says after how many seconds the next is taken.",
    "500": "A bug on our side.",
    "502": "The payment service answered with an error.",
    "503": "Something that the answer depends on is down.",
    "504": "The payment service did not answer in time; the same request again finds out what became of it.",
}
_EVERYWHERE = frozenset({"400", "401", "403", "404", "429", "500", "503"})
_WITH_A_BODY = frozenset({"413", "415", "422"})
_MUTATIONS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_WHEN_REFUSED = {
    "401": {"WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}}},
    "429": {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}},
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

_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "correlation_id", "details"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "examples": ["not_found"]},
        "correlation_id": {"type": "string"},
        "details": {"type": "object", "additionalProperties": True},
    },
}


def _header(name: str, description: str, *, required: bool = False, **schema: Any) -> OpenApiParameter:
    return OpenApiParameter(
        name,
        {"type": "string", **schema},
        OpenApiParameter.HEADER,
        required=required,
        description=description,
    )


_IDEMPOTENCY_KEY = partial(
    _header,
    "X-Idempotency-Key",
    "The same key with the same request again gets the first one's answer. Alias: `Idempotency-Key`.",
    pattern="^[!-~]{1,255}$",
)
_ORGANIZATION = (
    _header("X-Org-Slug", "The organization, for a person who is in several; else their default."),
    _header("X-Owner-ID", "The organization's id, instead of its slug.", format="uuid"),
)


class Schema(AutoSchema):
    """Describes our views: their permission, whether they need a credential, the headers and refusals they share."""

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        if isinstance(self.view, ApiView):  # Lists are asked for their rows' model, outside of any request.
            self.view.actor = NOBODY
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is not None and isinstance(self.view, ApiView):
            if any(parameter["name"] == "If-None-Match" for parameter in operation.get("parameters", ())):
                operation["responses"]["304"] = {"description": "What has this ETag is still what there is."}
            for status in self._refusals(operation):
                operation["responses"].setdefault(status, {"$ref": f"#/components/responses/Error{status}"})
        return operation

    def get_override_parameters(self) -> list[Any]:
        """Return the headers that this operation takes as others do."""
        shared: list[Any] = []
        if (
            self.method in _MUTATIONS
            and (required := getattr(self.view, "idempotency_required", None)) is not None
        ):
            shared.append(_IDEMPOTENCY_KEY(required=required))
        if isinstance(self.view, (OrganizationView, OptionalOrganizationView)) and "{slug}" not in self.path:
            shared += _ORGANIZATION
        return [*super().get_override_parameters(), *shared]

    def get_request_serializer(self) -> Any:
        # Only a view that says so takes a body here.
        return None if self.method == "DELETE" else super().get_request_serializer()

    def _get_request_body(self, direction: str = "request") -> dict[str, Any] | None:
        """Return the body as for POST: drf-spectacular describes none of DELETE, where two of our views take one."""
        method = self.method
        if method == "DELETE" and self.get_request_serializer() is not None:
            self.method = "POST"
        try:
            found = super()._get_request_body(direction)  # type: ignore[no-untyped-call]  # As drf-spectacular's own.
        finally:
            self.method = method
        return cast("dict[str, Any] | None", found)

    def _get_request_for_media_type(self, serializer: Any, direction: str = "request") -> tuple[Any, bool]:
        """Return the schema of a body and whether it must be there, which one written out by hand always must."""
        schema, required = super()._get_request_for_media_type(serializer, direction)  # type: ignore[no-untyped-call]  # As drf-spectacular's own.
        return schema, required or isinstance(serializer, dict)

    def _refusals(self, operation: dict[str, Any]) -> list[str]:
        """Return the statuses of the errors that this operation can answer with."""
        found = _EVERYWHERE | {str(status) for status in cast("ApiView", self.view).refusals}
        if "requestBody" in operation:
            found |= _WITH_A_BODY
        if self.method in _MUTATIONS:
            found |= {"409", "422"}
        headers = {parameter["name"]: parameter for parameter in operation.get("parameters", ())}
        if "If-Match" in headers:
            found |= {"412", "428"} if headers["If-Match"].get("required") else {"412"}
        return sorted(found)

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


class DecimalSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]  # It registers itself.
    """Describes decimals as bodies take and give them: plain digits in a text, or a number going in."""

    target_class = "rest_framework.serializers.DecimalField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        field: DecimalField = self.target
        whole, decimals = field.max_whole_digits, field.decimal_places
        digits = "0" if whole == 0 else rf"[0-9]{{1,{whole}}}" if whole else "[0-9]+"
        fraction = rf"(\.[0-9]{{1,{decimals}}})?" if decimals else ""
        sign = "" if field.min_value is not None and field.min_value >= 0 else "-?"
        described: dict[str, Any] = {
            "type": ["string", "number"] if direction == "request" else "string",
            "format": "decimal",
            "pattern": f"^{sign}{digits}{fraction}$",
        }
        if direction == "request":
            bounds = {"minimum": field.min_value, "maximum": field.max_value}
            described |= {name: int(bound) for name, bound in bounds.items() if bound is not None}
        return described


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
    components.setdefault("schemas", {}).update({"Error": _ERROR_SCHEMA, "Problem": _PROBLEM_SCHEMA})
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
            "headers": header | _WHEN_REFUSED.get(status, {}),
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Error"}},
                PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}},
            },
        }
        for status, description in _ERRORS.items()
    }
    for methods in result.get("paths", {}).values():
        for operation in methods.values():
            if not isinstance(operation, dict) or "responses" not in operation:
                continue
            for answer in operation["responses"].values():
                if "$ref" not in answer:
                    answer.setdefault("headers", {}).update(header)
    return result
