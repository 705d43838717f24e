"""REST: asking for an account."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.http.address import client_address
from apps.core.http.serializers import Input
from apps.core.http.views import PUBLIC, ApiView, Request
from apps.identity import services as identity


class SignUpInput(Input):
    """Address and password of the account, and the name that its organization begins with."""

    email = serializers.CharField(max_length=254)
    password = serializers.CharField(max_length=4096, trim_whitespace=False)
    name = serializers.CharField(max_length=150, required=False, allow_blank=True, default="")
    invite = serializers.CharField(
        max_length=200,
        required=False,
        allow_blank=True,
        default="",
        help_text="The token of an invite to this address, where the operator has closed sign-up.",
    )


class SignUpOutput(serializers.Serializer[Any]):
    """That the wish was taken; what becomes of it is in a mail to the address."""

    message = serializers.CharField()


class SignUp(ApiView):
    """Signing up."""

    permission = PUBLIC

    @extend_schema(request=SignUpInput, responses={202: SignUpOutput})
    def post(self, request: Request) -> Response:
        """Mail a link that makes the account once it is followed; the answer is the same for every address."""
        identity.request_sign_up(
            **SignUpInput.parse(request), address=client_address(request._request), now=timezone.now()
        )
        message = _("Look into your mail: it says how to go on.")
        return Response(SignUpOutput({"message": message}).data, status=202)
