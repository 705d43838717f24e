"""Whether a request comes from the developer's own machine, to which the development run shows more."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import wraps
from typing import Concatenate

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse

from apps.core.http.address import client_address

# A proxy on this machine would pass the world off as loopback.
FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via")


def is_own_machine(request: HttpRequest) -> bool:
    """Return whether this is the development run, asked directly from the machine that it runs on."""
    if not settings.DEBUG or any(header in request.headers for header in FORWARDING_HEADERS):
        return False
    # A foreign name that resolves to loopback would let another site read this page.
    host = request.get_host().rsplit(":", 1)[0].strip("[]")
    return _is_loopback(client_address(request)) and (host == "localhost" or _is_loopback(host))


def own_machine_only[**P](
    view: Callable[Concatenate[HttpRequest, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Make a view answer 404 to everybody but the developer."""

    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not is_own_machine(request):
            raise Http404
        return view(request, *args, **kwargs)

    return guarded


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
