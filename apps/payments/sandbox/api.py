"""The REST side: routes, parameters, idempotency keys and scripted faults, as Stripe answers them."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from apps.payments.sandbox import shapes
from apps.payments.sandbox.engine import Engine
from apps.payments.sandbox.errors import Refused, invalid
from apps.payments.sandbox.store import Body

ACCOUNT = "acct_sandbox"
EVENT_TYPES_MAX = 20  # Of a list of events; Stripe's own limit.
_LIST_PARAMS = frozenset({"limit", "starting_after", "ending_before", "created", "expand"})
_INTENT_PARAMS = frozenset(
    {
        "amount", "currency", "customer", "payment_method", "confirm", "off_session", "description", "metadata",
        "setup_future_usage", "receipt_email", "statement_descriptor_suffix", "automatic_payment_methods",
        "return_url", "expand", "error_on_requires_action",
    }
)  # fmt: skip
_SESSION_PARAMS = frozenset(
    {
        "mode", "customer", "client_reference_id", "success_url", "cancel_url", "currency", "line_items", "metadata",
        "expires_at", "payment_intent_data", "setup_intent_data", "payment_method_types", "expand",
    }
)  # fmt: skip


class Dropped(Exception):
    """The connection breaks here, without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status and a JSON body, and whether it is the stored answer of an earlier request."""

    status: int
    body: Body
    replayed: bool = False

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Request-Id": f"req_{secrets.token_hex(7)}"}
        if self.replayed:
            headers["Idempotent-Replayed"] = "true"
        return headers


class Api:
    """Answers the requests of Stripe's clients."""

    def __init__(
        self, engine: Engine, *, secret_key: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.engine = engine
        self.secret_key = secret_key
        self.requests: list[tuple[str, str, str]] = []  # Method, path and idempotency key of what came in.
        self._sleep = sleep
        self._in_flight: set[str] = set()
        self._flying = threading.Lock()

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to one request; raises Dropped where a fault breaks the connection."""
        key = headers.get("Idempotency-Key", "") if method == "POST" else ""
        self.requests.append((method, path, key))
        try:
            self._authenticate(headers)
            params = parse_form(body.decode() if method == "POST" else query)
        except Refused as refusal:
            return Answer(status=refusal.status, body=refusal.body)
        fault = self._take_fault(method, path)
        if fault and fault["when"] == "before":
            return self._misbehave(fault, None)
        if not key:
            return self._misbehave(fault, self._run(method, path, params))
        return self._once(key, method, path, params, fault)

    def _once(self, key: str, method: str, path: str, params: Body, fault: Body | None) -> Answer:
        with self._flying:
            if key in self._in_flight:
                return _conflict(key)
            self._in_flight.add(key)
        try:
            text = f"{path}\n{json.dumps(params, sort_keys=True)}"
            fingerprint = hashlib.sha256(text.encode()).hexdigest()
            store = self.engine.store
            rows = store.run("SELECT fingerprint, status, body FROM answer WHERE key = ?", key)
            if rows:
                known, status, kept = rows[0]
                if known != fingerprint:
                    return _reused(key)
                return self._misbehave(fault, Answer(status=status, body=json.loads(kept), replayed=True))
            with store.transaction():
                found = self._run(method, path, params, key=key)
                # What was executed is what is remembered, whatever becomes of the reply; an error that the
                # operator scripted after it is Stripe's own and is remembered too.
                if fault and fault["action"] == "error":
                    found = _scripted(fault)
                if found.status not in {400, 404, 409, 429}:
                    store.run(
                        "INSERT INTO answer VALUES (?, ?, ?, ?, ?)",
                        key, fingerprint, found.status, json.dumps(found.body), int(time.time()),
                    )  # fmt: skip
            return self._misbehave(fault, found)
        finally:
            with self._flying:
                self._in_flight.discard(key)

    def _authenticate(self, headers: Mapping[str, str]) -> None:
        if headers.get("Authorization", "") != f"Bearer {self.secret_key}":
            raise Refused(401, "invalid_request_error", "Invalid API Key provided.")

    def _run(self, method: str, path: str, params: Body, *, key: str = "") -> Answer:
        store = self.engine.store
        try:
            with store.transaction():
                self.engine.idempotency_key = key or None
                try:
                    found = self._dispatch(method, path, params)
                except Refused as refusal:
                    if refusal.status != 402:  # A declined card leaves its traces.
                        raise
                    return Answer(status=402, body=refusal.body)
                return Answer(status=200, body=shapes.public(found))
        except Refused as refusal:
            return Answer(status=refusal.status, body=refusal.body)

    def _dispatch(self, method: str, path: str, params: Body) -> Body:
        for wanted, pattern, known, handler in _ROUTES:
            match = pattern.fullmatch(path)
            if match and wanted == method:
                if unknown := set(params) - known:
                    raise invalid(
                        f"Received unknown parameter: {min(unknown)}",
                        param=min(unknown),
                        code="parameter_unknown",
                    )
                found: Body = handler(self.engine, params, *match.groups())
                return found
        raise Refused(404, "invalid_request_error", f"Unrecognized request URL ({method}: {path}).")

    # --- Faults ---

    def add_fault(self, rule: Mapping[str, Any]) -> None:
        """Script a fault; see docs/operator/stripe.md for the fields."""
        known = {"match", "action", "when", "status", "seconds", "times"}
        if unknown := set(rule) - known:
            raise invalid(f"Unknown field: {min(unknown)}")
        action = rule.get("action")
        if action not in {"delay", "error", "drop"}:
            raise invalid("A fault's action is delay, error or drop.", param="action")
        match = str(rule.get("match") or "POST /v1/.*")
        try:
            re.compile(match)
        except re.error as error:
            raise invalid(f"This is not a regular expression: {error}.", param="match") from error
        kept = {
            "match": match,
            "action": action,
            "when": "before" if rule.get("when") == "before" else "after",
            "status": _whole(rule, "status", 500),
            "seconds": _whole(rule, "seconds", 30),
        }
        self.engine.store.run(
            "INSERT INTO fault (rule, times) VALUES (?, ?)", json.dumps(kept), _whole(rule, "times", 1)
        )

    def faults(self) -> list[Body]:
        rows = self.engine.store.run("SELECT id, rule, times FROM fault WHERE times > 0 ORDER BY id")
        return [{"id": identity, **json.loads(rule), "times": times} for identity, rule, times in rows]

    def clear_faults(self) -> None:
        self.engine.store.run("DELETE FROM fault")

    def _take_fault(self, method: str, path: str) -> Body | None:
        with self.engine.store.transaction():
            for fault in self.faults():
                if re.fullmatch(fault["match"], f"{method} {path}"):
                    self.engine.store.run("UPDATE fault SET times = times - 1 WHERE id = ?", fault["id"])
                    return fault
        return None

    def _misbehave(self, fault: Body | None, found: Answer | None) -> Answer:
        """Answer as the fault says; `found` is the honest answer where the request was executed."""
        if fault is None:
            assert found is not None, "without a fault everything is executed"
            return found
        if fault["action"] == "drop":
            raise Dropped
        if fault["action"] == "delay":
            self._sleep(fault["seconds"])
            if found is None:
                raise Dropped
            return found
        return _scripted(fault)


def _whole(rule: Mapping[str, Any], name: str, instead: int) -> int:
    text = str(rule.get(name) or instead).strip()
    if not (text.isascii() and text.isdecimal()):
        raise invalid(f"Give a whole number of {name}.", param=name)
    return int(text)


def _scripted(fault: Body) -> Answer:
    status = fault["status"]
    kind = {429: "rate_limit_error", 409: "idempotency_error"}.get(status, "api_error")
    code = {429: "rate_limit", 409: "lock_timeout"}.get(status)
    error = {"type": kind, "message": "Scripted by the sandbox.", **({"code": code} if code else {})}
    return Answer(status=status, body={"error": error})


def _conflict(key: str) -> Answer:
    message = f"There is currently another in-progress request using this Idempotent Key: {key}"
    error = {"type": "idempotency_error", "code": "idempotency_key_in_use", "message": message}
    return Answer(status=409, body={"error": error})


def _reused(key: str) -> Answer:
    message = (
        "Keys for idempotent requests can only be used with the same parameters they were first used with. "
        f"Try using a key other than '{key}' if you meant to execute a different request."
    )
    return Answer(status=400, body={"error": {"type": "idempotency_error", "message": message}})


# --- Parameters ---


def parse_form(text: str) -> Body:
    """Return form parameters as Stripe reads them: `a[b]` is an object, `a[0]` and `a[]` are lists."""
    root: Body = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        parts = re.findall(r"[^\[\]]+|(?<=\[)(?=\])", name)
        here = root
        for part in parts[:-1]:
            here = here.setdefault(part or str(len(here)), {})
            if not isinstance(here, dict):
                raise invalid(f"Invalid object: {name}", param=name)
        here[parts[-1] or str(len(here))] = value
    return {name: _listed(value) for name, value in root.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(kept) for name, kept in value.items()}
    if inner and all(name.isdecimal() for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner


# --- Lists ---


def _page(
    engine: Engine, kind: str, url: str, params: Mapping[str, Any], keep: Callable[[Body], bool]
) -> Body:
    limit = int(params.get("limit", 10))
    if not 1 <= limit <= 100:
        raise invalid("Limit must be between 1 and 100.", param="limit")
    found: list[Body] = []
    rows = engine.store.newest(
        kind, before=params.get("starting_after", ""), after=params.get("ending_before", "")
    )
    for body in rows:
        if keep(body) and _created_within(body, params.get("created")):
            found.append(shapes.public(body))
            if len(found) > limit:
                break
    return {"object": "list", "data": found[:limit], "has_more": len(found) > limit, "url": url}


def _created_within(body: Body, bounds: Any) -> bool:
    if bounds is None:
        return True
    if not isinstance(bounds, dict):
        return bool(body["created"] == int(bounds))
    tests: dict[str, Callable[[int, int], bool]] = {
        "gt": lambda at, bound: at > bound,
        "gte": lambda at, bound: at >= bound,
        "lt": lambda at, bound: at < bound,
        "lte": lambda at, bound: at <= bound,
    }
    return all(tests[name](body["created"], int(bound)) for name, bound in bounds.items())


def _list(kind: str, *filters: str) -> Callable[[Engine, Body], Body]:
    def listed(engine: Engine, params: Body) -> Body:
        url = f"/v1/{kind.replace('.', '/')}s"
        wanted = {name: params[name] for name in filters if name in params}
        return _page(
            engine, kind, url, params, lambda body: all(body[name] == value for name, value in wanted.items())
        )

    return listed


def _list_events(engine: Engine, params: Body) -> Body:
    if len(params.get("types", ())) > EVENT_TYPES_MAX:
        raise invalid(f"Array types exceeded maximum {EVENT_TYPES_MAX} allowed elements.", param="types")
    kinds = set(params["types"]) if "types" in params else {params["type"]} if "type" in params else None
    undelivered: set[str] | None = None
    if "delivery_success" in params:
        state = params["delivery_success"] == "true"
        rows = engine.store.run("SELECT event FROM delivery WHERE (state = 'delivered') = ?", state)
        undelivered = {event for (event,) in rows}

    def keep(event: Body) -> bool:
        return (kinds is None or event["type"] in kinds) and (
            undelivered is None or event["id"] in undelivered
        )

    return _page(engine, "event", "/v1/events", params, keep)


def _list_methods(engine: Engine, params: Body, customer: str = "") -> Body:
    customer = customer or params.get("customer", "")
    if not customer:
        raise invalid("Missing required param: customer.", param="customer")
    kind = params.get("type")
    return _page(
        engine,
        "payment_method",
        "/v1/payment_methods",
        params,
        lambda body: body["customer"] == customer and kind in (None, body["type"]),
    )


def _create_method(engine: Engine, params: Body) -> Body:
    card = params.get("card")
    if params.get("type") != "card" or not isinstance(card, dict):
        raise invalid("Only cards can be made here.", param="type")
    return engine.add_method(card["number"], month=int(card["exp_month"]), year=int(card["exp_year"]))


def _account(_engine: Engine, _params: Body) -> Body:
    return {
        "id": ACCOUNT, "object": "account", "charges_enabled": True, "payouts_enabled": True, "details_submitted": True,
        "country": "US", "default_currency": "usd", "email": "sandbox@example.com", "type": "standard",
    }  # fmt: skip


Handler = Callable[..., Body]
_Route = tuple[str, re.Pattern[str], frozenset[str], Handler]


def _route(method: str, path: str, handler: Handler, params: Iterable[str] = ()) -> _Route:
    pattern = re.compile(path.replace("*", r"([\w-]+)"))
    return method, pattern, frozenset(params) | {"expand"}, handler


def _getter(kind: str) -> Handler:
    return lambda engine, _params, identity: engine.get(kind, identity)


_ROUTES: tuple[_Route, ...] = (
    _route("GET", "/v1/account", _account),
    _route(
        "POST",
        "/v1/customers",
        lambda e, p: e.create_customer(p),
        ("email", "name", "description", "metadata"),
    ),
    _route("GET", "/v1/customers", _list("customer", "email"), {*_LIST_PARAMS, "email"}),
    _route("GET", "/v1/customers/*", _getter("customer")),
    _route(
        "POST",
        "/v1/customers/*",
        lambda e, p, identity: e.update_customer(identity, p),
        ("email", "name", "description", "metadata", "invoice_settings"),
    ),
    _route("GET", "/v1/customers/*/payment_methods", _list_methods, {*_LIST_PARAMS, "type"}),
    _route("POST", "/v1/payment_methods", _create_method, ("type", "card")),
    _route("GET", "/v1/payment_methods", _list_methods, {*_LIST_PARAMS, "type", "customer"}),
    _route("GET", "/v1/payment_methods/*", _getter("payment_method")),
    _route(
        "POST",
        "/v1/payment_methods/*/attach",
        lambda e, p, identity: e.attach_method(identity, p.get("customer", "")),
        ("customer",),
    ),
    _route("POST", "/v1/payment_methods/*/detach", lambda e, _p, identity: e.detach_method(identity)),
    _route("POST", "/v1/checkout/sessions", lambda e, p: e.create_session(p), _SESSION_PARAMS),
    _route(
        "GET",
        "/v1/checkout/sessions",
        _list("checkout.session", "customer", "payment_intent", "status"),
        {*_LIST_PARAMS, "customer", "payment_intent", "status"},
    ),
    _route("GET", "/v1/checkout/sessions/*", lambda e, _p, identity: e.session_open(identity)),
    _route("POST", "/v1/checkout/sessions/*/expire", lambda e, _p, identity: e.expire_session(identity)),
    _route("POST", "/v1/payment_intents", lambda e, p: e.create_intent(p), _INTENT_PARAMS),
    _route("GET", "/v1/payment_intents", _list("payment_intent", "customer"), {*_LIST_PARAMS, "customer"}),
    _route("GET", "/v1/payment_intents/*", _getter("payment_intent")),
    _route(
        "POST",
        "/v1/payment_intents/*/confirm",
        lambda e, p, identity: e.confirm_intent(identity, p),
        ("payment_method", "off_session", "return_url", "receipt_email"),
    ),
    _route(
        "POST",
        "/v1/payment_intents/*/cancel",
        lambda e, p, identity: e.cancel_intent(identity, p),
        ("cancellation_reason",),
    ),
    _route("GET", "/v1/setup_intents/*", _getter("setup_intent")),
    _route("GET", "/v1/charges/*", _getter("charge")),
    _route(
        "POST",
        "/v1/refunds",
        lambda e, p: e.create_refund(p),
        ("charge", "payment_intent", "amount", "reason", "metadata"),
    ),
    _route(
        "GET",
        "/v1/refunds",
        _list("refund", "charge", "payment_intent"),
        {*_LIST_PARAMS, "charge", "payment_intent"},
    ),
    _route("GET", "/v1/refunds/*", _getter("refund")),
    _route(
        "GET",
        "/v1/disputes",
        _list("dispute", "charge", "payment_intent"),
        {*_LIST_PARAMS, "charge", "payment_intent"},
    ),
    _route("GET", "/v1/disputes/*", _getter("dispute")),
    _route("GET", "/v1/webhook_endpoints", _list("webhook_endpoint"), _LIST_PARAMS - {"created"}),
    _route("GET", "/v1/events", _list_events, {*_LIST_PARAMS, "type", "types", "delivery_success"}),
    _route("GET", "/v1/events/*", _getter("event")),
)
