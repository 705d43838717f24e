"""Refusals as Stripe words them."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """An error body of Stripe's, with its HTTP status."""

    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **more}}
        super().__init__(message)


def invalid(message: str, *, param: str = "", code: str = "") -> Refused:
    """Return the refusal of a request that asks for what cannot be."""
    more = {"param": param} if param else {}
    return Refused(400, "invalid_request_error", message, **more, **({"code": code} if code else {}))


def missing(kind: str, identity: str, *, param: str = "id") -> Refused:
    """Return the refusal of an object that is not there."""
    return Refused(
        404,
        "invalid_request_error",
        f"No such {kind}: '{identity}'",
        code="resource_missing",
        param=param,
    )
