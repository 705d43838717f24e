"""Requests: one authenticated GET beside a view that does nothing."""

from __future__ import annotations

import argparse

from bench import load, stack, world


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return how many GETs with a key are answered a second, and how many of a view that does nothing at all."""
    (organization,) = world.make_organizations(1, "requests")
    # Its rate is never reached.
    type(organization).objects.filter(pk=organization.pk).update(plan="enterprise")
    headers = {"X-API-Key": world.api_key(organization)}
    with stack.web("bench.bare", "/") as (port, _master):
        bare = load.get_per_s(port, "/", {}, requests=2 * options.requests)
    with stack.web("config.wsgi", "/healthz") as (port, _master):
        lists = load.get_per_s(port, "/api/v1/billing/credits", headers, requests=options.requests)
    return {
        "bare_view_per_s": round(bare),
        "authenticated_get_per_s": round(lists),
        "authenticated_get_ratio": round(lists / bare, 3),
    }
