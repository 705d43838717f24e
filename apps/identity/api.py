"""REST: one's own second factors."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.http.serializers import Input
from apps.core.http.views import AUTHENTICATED, ApiView, Request
from apps.identity import selectors
from apps.identity import services as identity


class CodeInput(Input):
    """A code of the authenticator."""

    code = serializers.CharField(max_length=64)


class FactorOutput(serializers.Serializer[Any]):
    """An enrolled factor."""

    created_at = serializers.DateTimeField()
    last_used_at = serializers.DateTimeField(allow_null=True)


class PasskeyOutput(FactorOutput):
    """A passkey."""

    id = serializers.IntegerField()
    name = serializers.SerializerMethodField()

    def get_name(self, passkey: Authenticator) -> str:
        return str(passkey)


class RecoveryCodesLeftOutput(serializers.Serializer[Any]):
    """How many recovery codes are left of how many."""

    left = serializers.IntegerField()
    total = serializers.IntegerField()


class MfaOutput(serializers.Serializer[Any]):
    """What a login needs besides the password; secrets are never shown."""

    enabled = serializers.BooleanField()
    totp = FactorOutput(allow_null=True)
    passkeys = PasskeyOutput(many=True)
    recovery_codes = RecoveryCodesLeftOutput(allow_null=True)


class TotpOutput(serializers.Serializer[Any]):
    """A secret for an authenticator app, by itself, as a link and as a picture; it counts once verified."""

    secret = serializers.CharField()
    otpauth_uri = serializers.CharField()
    qr_svg = serializers.CharField()


class RecoveryCodesOutput(serializers.Serializer[Any]):
    """Recovery codes, shown this once; each stands in once for the second factor."""

    recovery_codes = serializers.ListField(child=serializers.CharField())


class Mfa(ApiView):
    """One's second factors."""

    permission = AUTHENTICATED
    people_only = frozenset({"GET"})

    @extend_schema(responses=MfaOutput)
    def get(self, request: Request) -> Response:
        """Return what is enrolled."""
        found = selectors.factors_of(self.actor.person_id)
        codes = found.recovery_codes
        shown = {
            "enabled": found.enabled,
            "totp": found.totp,
            "passkeys": found.passkeys,
            "recovery_codes": {"left": codes[0], "total": codes[1]} if codes else None,
        }
        return Response(MfaOutput(shown).data)


class Totp(ApiView):
    """One's authenticator app."""

    permission = {"POST": AUTHENTICATED, "DELETE": AUTHENTICATED}
    people_only = frozenset({"POST", "DELETE"})
    # Removing asks for a code, which proves more than an earlier step-up would.
    step_up = frozenset({"POST"})

    @extend_schema(request=None, responses=TotpOutput)
    def post(self, request: Request) -> Response:
        """Begin to set one up: return a secret, which waits for its first code for 30 minutes."""
        offer = identity.begin_totp(actor=self.actor, now=timezone.now())
        return Response(TotpOutput(offer).data)

    @extend_schema(request=CodeInput, responses={204: None})
    def delete(self, request: Request) -> Response:
        """Remove it for a code of it or a recovery code."""
        identity.remove_totp(
            actor=self.actor,
            **CodeInput.parse(request),
            browser=request.headers.get("User-Agent", ""),
            now=timezone.now(),
        )
        return Response(status=204)


class TotpVerification(ApiView):
    """The first code of a new authenticator app."""

    permission = AUTHENTICATED
    people_only = frozenset({"POST"})
    step_up = frozenset({"POST"})

    @extend_schema(request=CodeInput, responses=RecoveryCodesOutput)
    def post(self, request: Request) -> Response:
        """Make it count, and return recovery codes; an empty list where there are some already."""
        codes = identity.verify_totp(
            actor=self.actor,
            **CodeInput.parse(request),
            browser=request.headers.get("User-Agent", ""),
            now=timezone.now(),
        )
        return Response(RecoveryCodesOutput({"recovery_codes": codes}).data)


class RecoveryCodes(ApiView):
    """One's recovery codes."""

    permission = AUTHENTICATED
    people_only = frozenset({"POST"})
    step_up = frozenset({"POST"})

    @extend_schema(request=None, responses=RecoveryCodesOutput)
    def post(self, request: Request) -> Response:
        """Replace them; the earlier ones stop working."""
        codes = identity.renew_recovery_codes(
            actor=self.actor, browser=request.headers.get("User-Agent", ""), now=timezone.now()
        )
        return Response(RecoveryCodesOutput({"recovery_codes": codes}).data)
