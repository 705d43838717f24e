"""REST: tokens of people, and the public keys that verify them."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.errors import PermissionDenied
from apps.core.http.address import client_address
from apps.core.http.serializers import Input
from apps.core.http.views import AUTHENTICATED, PUBLIC, ApiView, Request
from apps.credentials import services
from apps.credentials.models import TokenFamily


class LoginInput(Input):
    """Address, password and, where a second factor exists, a code of it or a recovery code."""

    email = serializers.CharField(max_length=254)
    password = serializers.CharField(max_length=4096, trim_whitespace=False)
    otp = serializers.CharField(required=False, allow_blank=True, default="", max_length=64)


class RefreshInput(Input):
    """The refresh token; it works once."""

    refresh_token = serializers.CharField(max_length=256)


class StepUpInput(Input):
    """A code of the second factor; the password only where none exists."""

    otp = serializers.CharField(required=False, allow_blank=True, default="", max_length=64)
    password = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=4096, trim_whitespace=False
    )


class TokensOutput(serializers.Serializer[Any]):
    """An access token for `expires_in` seconds, and the refresh token that gets the next pair."""

    access_token = serializers.CharField()
    refresh_token = serializers.CharField()
    token_type = serializers.SerializerMethodField()
    expires_in = serializers.IntegerField()

    def get_token_type(self, _tokens: services.Tokens) -> str:
        return "Bearer"


class Login(ApiView):
    """Logging in without a session."""

    permission = PUBLIC

    @extend_schema(request=LoginInput, responses=TokensOutput)
    def post(self, request: Request) -> Response:
        """Return tokens; 401 `mfa_required` asks for `otp` once the password was right."""
        body = LoginInput.parse(request)
        tokens = services.login(
            **body,
            address=client_address(request._request),
            user_agent=request.headers.get("User-Agent", ""),
            now=timezone.now(),
        )
        return Response(TokensOutput(tokens).data)


class Refresh(ApiView):
    """The next pair of tokens."""

    permission = PUBLIC

    @extend_schema(request=RefreshInput, responses=TokensOutput)
    def post(self, request: Request) -> Response:
        """Return a new pair and end the token sent; one that comes twice ends the whole login."""
        tokens = services.refresh(
            **RefreshInput.parse(request), address=client_address(request._request), now=timezone.now()
        )
        return Response(TokensOutput(tokens).data)


class _OwnLogin(ApiView):
    """A view about the login behind the access token."""

    permission = AUTHENTICATED
    people_only = frozenset({"POST"})

    def family(self, request: Request) -> TokenFamily:
        """Return that login."""
        if not isinstance(request.auth, TokenFamily):
            raise PermissionDenied(_("Only a person may do that, not a key."))
        return request.auth


class Logout(_OwnLogin):
    """Logging out."""

    permission = AUTHENTICATED

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        """End the access and refresh tokens of this login."""
        services.logout(family=self.family(request), address=self.actor.address, now=timezone.now())
        return Response(status=204)


class StepUp(_OwnLogin):
    """Proving oneself again, for ten minutes of sensitive changes."""

    permission = AUTHENTICATED

    @extend_schema(request=StepUpInput, responses={204: None})
    def post(self, request: Request) -> Response:
        """Take a code of the second factor, or the password where none exists."""
        services.step_up(
            family=self.family(request),
            **StepUpInput.parse(request),
            address=self.actor.address,
            now=timezone.now(),
        )
        return Response(status=204)


@extend_schema(exclude=True)
class Jwks(ApiView):
    """The public keys, for whoever verifies access tokens; browsers of any origin may read them."""

    permission = PUBLIC
    authentication_classes = ()

    def get(self, request: Request) -> Response:
        """Return them as a JWK set."""
        return Response(
            {"keys": services.published(timezone.now())},
            headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"},
        )
