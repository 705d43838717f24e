"""Stripe's own description of its objects and requests, held against what the sandbox answers and what we send."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from django.conf import settings
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from apps.payments.sandbox.api import parse_form


@cache
def _description() -> dict[str, Any]:
    return _plain(json.loads((settings.ROOT / "tests" / "data" / "stripe-openapi.json").read_text()))


def _plain(node: Any) -> Any:
    """Return a schema of OpenAPI 3.0 as JSON Schema, which writes what may be null as a choice."""
    if isinstance(node, list):
        return [_plain(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    inner = {name: _plain(value) for name, value in node.items() if name != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if node.get("nullable") is True else inner


@cache
def _registry() -> Registry:
    root = {"components": {"schemas": _description()["schemas"]}}
    return Registry().with_resource("urn:stripe", Resource(contents=root, specification=DRAFT202012))


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"urn:stripe#/components/schemas/{name}"}, registry=_registry())


def problems_of_object(body: dict[str, Any]) -> list[str]:
    """Return what is wrong with the shape of an object, of each in a list, and of the one in an event."""
    name = body.get("object", "")
    if name == "list":
        return [problem for inner in body["data"] for problem in problems_of_object(inner)]
    if name not in _description()["schemas"]:
        return [f"no such object: {name}"]
    found = [
        f"{name}.{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in _validator(name).iter_errors(body)
    ]
    if name == "event":
        found += problems_of_object(body["data"]["object"])
    return found


def problems_of_request(method: str, path: str, text: str) -> list[str]:
    """Return the parameters of a request that Stripe does not know; requests that we never make are problems too."""
    parts = path.strip("/").split("/")
    for known, schema in _description()["requests"].items():
        verb, _space, pattern = known.partition(" ")
        wanted = pattern.strip("/").split("/")
        fits = len(wanted) == len(parts) and all(
            one.startswith("{") or one == other for one, other in zip(wanted, parts, strict=True)
        )
        if verb == method and fits:
            return list(_unknown(parse_form(text), schema, ""))
    return [f"{method} {path} is not described"] if text else []


def _unknown(value: Any, schema: dict[str, Any], path: str) -> Any:
    options = [schema, *schema.get("anyOf", [])]
    if isinstance(value, list):
        items = next((option["items"] for option in options if "items" in option), None)
        for index, inner in enumerate(value):
            if items is None:
                yield f"{path} is no list"
            else:
                yield from _unknown(inner, items, f"{path}[{index}]")
    elif isinstance(value, dict):
        objects = [option for option in options if option.get("type") == "object"]
        if not objects:
            yield f"{path} is no object"
            return
        properties = {
            name: inner for option in objects for name, inner in option.get("properties", {}).items()
        }
        for name, inner in value.items():
            if name in properties:
                yield from _unknown(inner, properties[name], f"{path}.{name}")
            elif not any(option.get("additionalProperties", True) for option in objects):
                yield f"{path}.{name} is unknown"
