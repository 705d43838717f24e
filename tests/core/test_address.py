"""The client's address: what a proxy that we trust says, never what the client says."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from apps.core.http.address import client_address


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        (0, "198.51.100.1", None, "198.51.100.1"),
        (0, "198.51.100.1", "203.0.113.9", "198.51.100.1"),
        (1, "10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (1, "10.0.0.1", "1.2.3.4, 203.0.113.9", "203.0.113.9"),
        (2, "10.0.0.1", "1.2.3.4, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (2, "10.0.0.1", "203.0.113.9", "10.0.0.1"),
        (1, "10.0.0.1", None, "10.0.0.1"),
        (1, "10.0.0.1", "<script>", "10.0.0.1"),
        (0, "2001:DB8:0:0::1", None, "2001:db8::1"),
        (0, "::ffff:198.51.100.1", None, "198.51.100.1"),
        (0, "", None, ""),
    ],
)
def test_only_what_trusted_proxies_wrote_counts(settings, proxies, peer, forwarded, address):
    settings.TRUSTED_PROXY_COUNT = proxies
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded is not None else {}

    assert client_address(RequestFactory().get("/", REMOTE_ADDR=peer, **headers)) == address
