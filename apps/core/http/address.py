"""Where a request comes from, as far as it can be believed."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """Return the client's address, or "" where the server cannot tell.

    With TRUSTED_PROXY_COUNT n > 0 it is the nth X-Forwarded-For entry from the right: what stands left of it
    was written by the client and proves nothing. A shorter or garbled header falls back to the connection.
    """
    peer = _canonical(request.META.get("REMOTE_ADDR", ""))
    count: int = settings.TRUSTED_PROXY_COUNT
    if not count:
        return peer
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    return (_canonical(hops[-count]) if len(hops) >= count else "") or peer


def limiting_address(address: str) -> str:
    """Return what stands for an address where requests are counted: of IPv6 the /64, which one customer has whole."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network(f"{address}/64", strict=False))


def _canonical(text: str) -> str:
    """Return an address in its one spelling; IPv4 inside IPv6 becomes IPv4, anything else becomes ""."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
