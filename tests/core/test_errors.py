"""Every error has the same body, whatever raised it and wherever in the stack."""

from __future__ import annotations

import gzip
from decimal import Decimal
from io import BytesIO
from uuid import UUID

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import IntegrityError, OperationalError
from django.http import Http404, HttpResponse
from django.test import Client
from django.urls import path
from rest_framework import serializers
from rest_framework.response import Response

from apps.core.errors import Conflict, DomainError
from apps.core.http.serializers import Input
from apps.core.http.views import PUBLIC, ApiView
from config.urls import *  # noqa: F403  Also the handlers, which are found in the root URLconf.
from config.urls import urlpatterns as ours
from tests import build

KEYS = {"code", "message", "correlation_id", "details", "detail", "error"}


class InsufficientCredit(DomainError):
    code, http_status = "insufficient_credit", 402


RAISED = {
    "domain": InsufficientCredit("Too little.", missing=Decimal("1E-7")),
    "conflict": Conflict(),
    "404": Http404(),
    "403": PermissionDenied(),
    "400": SuspiciousOperation(),
    "integrity": IntegrityError("duplicate key"),
    "database": OperationalError("connection refused"),
    "bug": ZeroDivisionError(),
}


class Item(Input):
    quantity = serializers.DecimalField(max_digits=10, decimal_places=2)


class Body(Input):
    name = serializers.CharField(max_length=5)
    count = serializers.IntegerField(required=False)
    flag = serializers.BooleanField(required=False)
    at = serializers.DateTimeField(required=False)
    tags = serializers.ListField(child=serializers.CharField(), required=False)
    items = Item(many=True, required=False)


class Raises(ApiView):
    permission = PUBLIC

    def get(self, request, kind):
        raise RAISED[kind]


class Echo(ApiView):
    permission = PUBLIC

    def post(self, request):
        return Response(Body.parse(request))

    def get(self, request):
        return Response({"price": Decimal("0.0000000100"), "at": build.NOW, "id": UUID(int=7)})


def page(request, kind):
    if kind == "fine":
        return HttpResponse("fine")
    raise RAISED[kind]


urlpatterns = [
    path("api/v1/test/raises/<kind>", Raises.as_view()),
    path("api/v1/test/page/<kind>", page),
    path("test/page/<kind>", page),
    path("api/v1/test/echo", Echo.as_view()),
    *ours,
]
pytestmark = pytest.mark.urls(__name__)
ECHO = "/api/v1/test/echo"


@pytest.fixture
def client():
    found = build.client()
    found.raise_request_exception = False
    return found


def post_raw(client, body, content_type="application/json", path=ECHO, **extra):
    return client.generic("POST", path, body, content_type=content_type, **extra)


@pytest.mark.parametrize(
    ("kind", "status", "code", "compatible"),
    [
        ("domain", 402, "insufficient_credit", "PAYMENT_REQUIRED"),
        ("conflict", 409, "conflict", "CONFLICT"),
        ("404", 404, "not_found", "NOT_FOUND"),
        ("403", 403, "insufficient_permissions", "FORBIDDEN"),
        ("400", 400, "invalid_request", "BAD_REQUEST"),
        ("integrity", 500, "internal_error", "INTERNAL_SERVER_ERROR"),
        ("database", 503, "unavailable", "INTERNAL_SERVER_ERROR"),
        ("bug", 500, "internal_error", "INTERNAL_SERVER_ERROR"),
    ],
)
@pytest.mark.parametrize("route", ["raises", "page"])
def test_whatever_is_raised_has_the_one_body(client, route, kind, status, code, compatible):
    answer = client.get(f"/api/v1/test/{route}/{kind}", headers={"X-Correlation-Id": "abc.1:2-3"})

    body = answer.json()
    assert answer.status_code == status
    assert set(body) == KEYS
    assert (body["code"], body["correlation_id"], answer["X-Correlation-Id"]) == (
        code,
        "abc.1:2-3",
        "abc.1:2-3",
    )
    assert body["detail"] == body["message"] == body["error"]["message"]
    assert body["error"] | {"message": ""} == {"message": "", "code": compatible, "httpStatus": status}
    assert answer["Content-Type"] == "application/json"
    assert "duplicate" not in answer.text


def test_details_are_exact(client):
    assert client.get("/api/v1/test/raises/domain").json()["details"] == {"missing": "0.0000001"}


def test_a_503_says_when_to_come_back(client):
    assert client.get("/api/v1/test/raises/database")["Retry-After"] == "1"


def test_problem_json_on_request(client):
    answer = client.get("/api/v1/test/raises/domain", headers={"Accept": "application/problem+json"})

    body = answer.json()
    assert answer["Content-Type"] == "application/problem+json"
    assert body["type"] == "about:blank"
    assert (body["title"], body["status"], body["detail"]) == ("Payment Required", 402, "Too little.")
    assert body["code"] == "insufficient_credit"


@pytest.mark.parametrize("accept", ["text/html", "*/*", "image/png", ""])
def test_json_is_all_there_is_whatever_is_accepted(client, accept):
    answer = client.get(ECHO, headers={"Accept": accept})

    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/nothing",
        "/api/v1/me/",
        "/v1/nothing",
        "/orgs/x/nothing",
        "/auth/nothing",
        "/api/v1",
        "/api/v2/me",
    ],
)
def test_an_unknown_path_or_a_trailing_slash_is_a_404_in_the_body(client, path, settings):
    for settings.DEBUG in (True, False):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_page_gets_a_page(client):
    answer = client.get("/test/page/bug")

    assert answer.status_code == 500
    assert answer["Content-Type"].startswith("text/html")
    assert client.get("/test/page/database").status_code == 503


def test_wrong_methods_name_the_right_ones(client):
    answer = client.delete(ECHO)

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer["Allow"].split(", ")) == {"GET", "POST", "HEAD", "OPTIONS"}


def test_head_and_options(client):
    assert client.head(ECHO).status_code == 200
    answer = client.options(ECHO)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "POST" in answer["Allow"]


def test_another_content_type_is_415(client):
    answer = post_raw(client, b"name=x", "application/x-www-form-urlencoded")

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_compressed_body_is_415_and_not_read_as_text(client):
    body = gzip.compress(b'{"amount": "1"}')

    answer = client.post(ECHO, body, content_type="application/json", headers={"Content-Encoding": "gzip"})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    plain = client.post(
        ECHO, b"{}", content_type="application/json", headers={"Content-Encoding": "identity"}
    )
    assert plain.status_code != 415


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b'{"name": ', 9),
        (b"", None),
        (b'{"name": NaN}', 9),
        (b'{"name": Infinity}', 9),
        (b"{'name': 1}", 1),
        (b'{"name": "a"} x', 15),
        (b'\xff{"name"}', 0),
        (b'{"name": "\xff"}', None),
        (b"[" * 100_000, None),
        (b'{"count": 1e999999999}', None),
    ],
)
def test_what_is_no_json_is_a_400_with_the_position(client, body, position):
    answer = post_raw(client, body)

    if body == b"":
        assert (answer.status_code, answer.json()["details"]["fields"][0]["code"]) == (422, "required")
        return
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    if position is not None:
        assert answer.json()["details"]["position"] == position


@pytest.mark.parametrize("body", [b'{"name": "a\\u0000"}', b'{"x": [{"y": "\\u0000"}]}', b'{"\\u0000": 1}'])
def test_nul_characters_are_refused_wherever_they_hide(client, body):
    answer = post_raw(client, body)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "NUL" in answer.json()["message"]


def test_every_wrong_field_is_named_once(client):
    answer = client.post(
        ECHO,
        {
            "name": 5,
            "count": "3",
            "flag": "true",
            "at": "2026-05-01T00:00:00",
            "tags": ["a", 1],
            "items": [{"quantity": "1.00"}, {"quantity": "1.001"}, {}],
            "unknown": True,
        },
    )

    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, "validation_error")
    assert {row["path"] for row in body["details"]["fields"]} == {
        "name",
        "count",
        "flag",
        "at",
        "tags",
        "items.1.quantity",
        "items.2.quantity",
    }
    assert ["body", "items", 2, "quantity"] in [row["loc"] for row in body["detail"]]
    assert {"loc", "msg", "type"} == set(body["detail"][0])
    assert body["error"]["code"] == "BAD_REQUEST"
    assert body["error"]["httpStatus"] == 422


@pytest.mark.parametrize("body", [[], "text", 5, None])
def test_a_body_that_is_no_object_is_named(client, body):
    assert client.post(ECHO, body).status_code == 422


def test_numbers_come_in_and_go_out_exactly(client):
    answer = post_raw(client, b'{"name": "x", "items": [{"quantity": 0.10}, {"quantity": "1.2"}]}')
    assert answer.json()["items"] == [{"quantity": "0.10"}, {"quantity": "1.20"}]

    answer = client.get(ECHO)
    assert answer.json() == {
        "price": "0.0000000100",
        "at": "2026-05-15T12:00:00Z",
        "id": "00000000-0000-0000-0000-000000000007",
    }


@pytest.mark.parametrize(
    "text",
    [
        "1e3",
        "1_000",
        "١٢",
        "NaN",
        "-Infinity",
        " 5",
        "5 ",
        "+5",
        ".5",
        "5.",
        "",
        "-",
        "0x1",
        "1,5",
        "5" * 2000,
    ],
)
def test_a_decimal_is_written_in_plain_digits(client, text):
    answer = client.post(ECHO, {"name": "x", "items": [{"quantity": text}]})

    assert answer.status_code == 422
    assert [row["path"] for row in answer.json()["details"]["fields"]] == ["items.0.quantity"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-15T12:00:00+14:00", "2026-05-14T22:00:00Z"),
        ("2026-05-15T12:00:00+23:59", "2026-05-14T12:01:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-12:00", None),
        ("2026-06-30T23:59:60Z", None),
        ("2026-05-15T24:00:01Z", None),
        ("2026-05-15T12:00:00", None),
        ("2026-05-15", None),
    ],
)
def test_a_moment_comes_in_with_its_offset_and_exists(client, text, moment):
    answer = client.post(ECHO, {"name": "x", "at": text})

    assert answer.json().get("at") == moment
    assert answer.status_code == (200 if moment else 422)


@pytest.mark.parametrize("sent", ["x" * 129, "with space", "ü", "a\tb", ""])
def test_a_correlation_id_that_cannot_be_one_is_replaced(client, sent):
    answer = client.get(ECHO, HTTP_X_CORRELATION_ID=sent)

    assert UUID(answer["X-Correlation-Id"]).version == 7


@pytest.mark.parametrize(("path", "limit"), [(ECHO, 2**20), ("/api/v1/usage/events", 2**23)])
def test_a_body_over_the_limit_is_413(client, path, limit):
    answer = post_raw(client, b" " * (limit + 1), path=path)

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert answer.json()["details"] == {"limit_bytes": limit}
    assert post_raw(client, b" " * limit, path=ECHO).status_code in {400, 413}


@pytest.mark.parametrize("size", [20, 2**20 + 1])
def test_a_chunked_body_is_read_and_limited_as_well(size):
    body = b'{"name": "x"}'.ljust(size)

    class Chunked(Client):
        def request(self, **environment):
            environment.pop("CONTENT_LENGTH", None)
            return super().request(
                **environment | {"wsgi.input": BytesIO(body), "wsgi.input_terminated": True}
            )

    answer = Chunked().generic("POST", ECHO, body, content_type="application/json")

    assert answer.status_code == (200 if size == 20 else 413)


def test_plain_http_is_refused_where_the_operator_says_so(client, settings):
    settings.REQUIRE_HTTPS = True

    answer = client.get(ECHO)

    assert (answer.status_code, answer.json()["code"]) == (403, "https_required")
    assert client.get(ECHO, secure=True).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_health_and_readiness(client, db, monkeypatch):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "checks": {"database": "ok", "broker": "ok"}}

    monkeypatch.setattr("apps.core.http.health._broker_answers", lambda: False)
    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["details"]["checks"]) == (
        503,
        {"database": "ok", "broker": "down"},
    )
