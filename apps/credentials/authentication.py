"""Finding the credential of a request."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from apps.core import metrics
from apps.core.actor import Actor
from apps.core.http.address import client_address
from apps.credentials import secrets, services
from apps.credentials.models import TokenFamily
from apps.credentials.services import AnyCredential, TokenInvalid

_DOTS_OF_A_TOKEN = 2  # A signed token is header.claims.signature; no key has a dot.
_QUERY_NAMES = frozenset({"api_key", "apikey", "api-key", "x-api-key", "access_token"})


class CredentialAuthentication(BaseAuthentication):
    """`Authorization: Bearer …` or `X-API-Key`, both only if they agree; never a cookie, never the address bar."""

    def authenticate(self, request: Request) -> tuple[Actor, AnyCredential | TokenFamily] | None:
        refuse_secrets_in_query(request)
        bearer, key = _bearer(request), request.headers.get("X-API-Key", "").strip()
        if bearer and key and bearer != key:
            raise _refused("two_credentials", _("Authorization and X-API-Key differ. Send one credential."))
        secret = bearer or key
        if not secret:
            return None
        address, now = client_address(request._request), timezone.now()
        if secret.count(".") == _DOTS_OF_A_TOKEN:
            family, person = services.authenticate_access_token(
                secret, address=address, now=now, organization=_named_organization(request)
            )
            return person, family
        credential, actor = services.authenticate_secret(secret, address=address, now=now)
        return actor, credential

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def refuse_secrets_in_query(request: Request) -> None:
    """Raise TokenInvalid for a credential in the address: it is in logs, histories and referrers by now."""
    for name, values in request.query_params.lists():
        if name.lower() in _QUERY_NAMES or any(
            secrets.parse(value) or value.startswith("eyJ") for value in values
        ):
            message = _("Never send a credential in the address. Replace it: logs may hold it.")
            raise _refused("in_the_address", message)


def _named_organization(request: Request) -> str:
    """Return what the request says about its organization, in the order in which the resolver takes it."""
    path = request.parser_context["kwargs"].get("slug")
    return path or request.headers.get("X-Org-Slug") or request.headers.get("X-Owner-ID") or ""


def _bearer(request: Request) -> str:
    header = request.headers.get("Authorization", "").strip()
    if not header:
        return ""
    scheme, _space, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _refused("not_bearer", _("Authorization must be `Bearer` and a credential."))
    return token.strip()


def _refused(reason: str, message: str) -> TokenInvalid:
    return metrics.failed_authentication(metrics.MACHINE, reason, TokenInvalid(message))


class CredentialScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # It registers itself.
    """Describes the two headers in the OpenAPI document."""

    target_class = "apps.credentials.authentication.CredentialAuthentication"
    name = ["bearer", "apiKey"]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        return [{"bearer": []}, {"apiKey": []}]  # Either, not both.

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]
