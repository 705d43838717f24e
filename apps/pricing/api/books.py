"""REST: price books with their versions and rows; drafts are edited under `If-Match`, then published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import InvalidRequest, ValidationFailed
from apps.core.http.filters import refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import ApiView, ListMixin
from apps.core.permissions import IntegrationScope
from apps.idempotency.mixins import IdempotentMixin
from apps.pricing import selectors, services
from apps.pricing.models import PriceBook, PriceBookVersion
from apps.pricing.rows import PriceRow, read_row

IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, required=True, description="The ETag that was read."
)
IF_MATCH_OPTIONAL = OpenApiParameter("If-Match", str, OpenApiParameter.HEADER)
IF_NONE_MATCH = OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER)


class TierBody(serializers.Serializer[Any]):
    up_to = serializers.CharField(allow_null=True)
    unit_price = serializers.CharField()
    flat_fee = serializers.CharField(required=False)


class RowBody(serializers.Serializer[Any]):
    """A price as in a price book file: only the fields of its model."""

    meter = serializers.CharField()
    sku = serializers.CharField()
    region = serializers.CharField()
    model = serializers.CharField()
    unit_price = serializers.CharField(required=False)
    tiers = TierBody(many=True, required=False)
    package_size = serializers.CharField(required=False)
    package_price = serializers.CharField(required=False)
    free_units = serializers.CharField(required=False)


class VersionOutput(serializers.Serializer[Any]):
    """One edition of a book."""

    id = serializers.UUIDField()
    number = serializers.IntegerField()
    state = serializers.CharField(help_text="draft, published or retired")
    effective_from = serializers.DateTimeField(allow_null=True)
    effective_to = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    published_at = serializers.DateTimeField(allow_null=True)


class BookRowOutput(serializers.Serializer[Any]):
    """A book in a list; version is the number of the one in force now."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    currency = serializers.CharField()
    is_demonstration = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    version = serializers.IntegerField(source="version_in_force", allow_null=True)


class BookOutput(serializers.Serializer[Any]):
    """A book, its versions, and the rows of one: of the draft if there is one, else of the newest version."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    currency = serializers.CharField()
    is_demonstration = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    versions = VersionOutput(many=True)
    version = serializers.IntegerField(
        allow_null=True, help_text="The version that `state` and `prices` are of."
    )
    state = serializers.CharField(allow_null=True)
    prices = RowBody(many=True)


class VersionDetailOutput(VersionOutput):
    """A version with its rows; retired ones stay readable."""

    prices = RowBody(many=True)


class PricesField(serializers.ListField):
    """Rows as a price book file has them; `read_row` says what is wrong with each."""

    child = serializers.JSONField()


class BookInput(Input):
    """A new book; with prices it gets a draft."""

    name = serializers.CharField(max_length=150)
    currency = serializers.CharField(max_length=3, min_length=3)
    effective_from = serializers.DateTimeField(default=None, allow_null=True)
    prices = PricesField(default=list)


class DraftInput(Input):
    """Every row of the draft; rows that are left out are removed."""

    prices = PricesField(allow_empty=False)


class PublishInput(Input):
    """The whole UTC hour from which the draft applies; by default what the draft proposes."""

    effective_from = serializers.DateTimeField(default=None, allow_null=True)


class BookView(IdempotentMixin, ApiView):
    """Price books belong to the operator, so whoever manages them needs no organization."""

    permission = IntegrationScope.PRICING_MANAGE

    def answer(self, book: PriceBook, *, status: int = 200) -> Response:
        """Return the book with its tag."""
        shown = selectors.version_to_show(book)
        versions = book.versions.order_by("-number")
        return self.tagged(
            book,
            {
                **_head(book),
                "versions": [dict(VersionOutput(version).data) for version in versions],
                "version": shown.number if shown else None,
                "state": shown.state if shown else None,
                "prices": _rows(shown),
            },
            status=status,
        )

    def tagged(self, book: PriceBook, data: dict[str, Any], *, status: int = 200) -> Response:
        """Return data with the book's tag, or 304 to whoever has that already."""
        tag = selectors.tag_of_book(book)
        headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
        known = (
            _tags(self.request, "If-None-Match", weak=True)
            if self.request.method in ("GET", "HEAD")
            else None
        )
        if known and known & {tag, services.ANY_TAG}:
            return Response(status=304, headers=headers)
        return Response(data, status=status, headers=headers)


class BookList(ListMixin, BookView):
    """Every price book, and a new one."""

    permission = IntegrationScope.PRICING_MANAGE
    serializer_class = BookRowOutput
    ordering = ("name", "id")
    sortable: ClassVar = {"name": ("name", "id"), "created_at": ("created_at", "id")}

    def get_queryset(self) -> QuerySet[PriceBook]:
        """Return the books with the number of the version in force."""
        return PriceBook.objects.with_version_in_force(timezone.now())

    @extend_schema(request=BookInput, responses={201: BookOutput})
    def post(self, request: Request) -> Response:
        body = BookInput.parse(request)
        book = services.create_book_with_draft(
            actor=self.actor,
            name=body["name"],
            currency=body["currency"],
            rows=_read(body["prices"]),
            effective_from=body["effective_from"],
            now=timezone.now(),
        )
        return self.answer(book, status=201)


class BookDetail(BookView):
    """One book; PUT and PATCH replace the rows of its draft, and start one where there is none."""

    permission = IntegrationScope.PRICING_MANAGE

    @extend_schema(parameters=[IF_NONE_MATCH], responses=BookOutput)
    def get(self, request: Request, book_id: Any) -> Response:
        refuse_unknown_parameters(request, set())
        return self.answer(selectors.book_by_id(book_id))

    @extend_schema(parameters=[IF_MATCH], request=DraftInput, responses=BookOutput)
    def put(self, request: Request, book_id: Any) -> Response:
        book = selectors.book_by_id(book_id)
        tags = _required_tags(request)
        body = DraftInput.parse(request)
        services.edit_draft(
            actor=self.actor, book=book, rows=_read(body["prices"]), tags=tags, now=timezone.now()
        )
        return self.answer(book)

    @extend_schema(parameters=[IF_MATCH], request=DraftInput, responses=BookOutput)
    def patch(self, request: Request, book_id: Any) -> Response:
        return self.put(request, book_id)

    @extend_schema(parameters=[IF_MATCH], responses={204: None})
    def delete(self, request: Request, book_id: Any) -> Response:
        """Discard the draft; whatever was published stays."""
        book = selectors.book_by_id(book_id)
        tags = _required_tags(request)
        services.discard_draft_of(actor=self.actor, book=book, tags=tags, now=timezone.now())
        return Response(status=204)


class BookPublish(BookView):
    """The draft goes into force from a whole UTC hour on."""

    permission = IntegrationScope.PRICING_MANAGE

    @extend_schema(parameters=[IF_MATCH_OPTIONAL], request=PublishInput, responses=BookOutput)
    def post(self, request: Request, book_id: Any) -> Response:
        book = selectors.book_by_id(book_id)
        body = PublishInput.parse(request)
        services.publish_draft_of(
            actor=self.actor,
            book=book,
            effective_from=body["effective_from"],
            tags=_tags(request, "If-Match"),
            now=timezone.now(),
        )
        return self.answer(book)


class VersionDetail(BookView):
    """One version with all its rows."""

    permission = IntegrationScope.PRICING_MANAGE

    @extend_schema(parameters=[IF_NONE_MATCH], responses=VersionDetailOutput)
    def get(self, request: Request, book_id: Any, number: int) -> Response:
        refuse_unknown_parameters(request, set())
        version = selectors.version_by_number(book_id, number)
        data = {**VersionOutput(version).data, "prices": _rows(version)}
        return self.tagged(version.book, data)


def _head(book: PriceBook) -> dict[str, Any]:
    return {
        "id": book.pk,
        "name": book.name,
        "currency": book.currency,
        "is_demonstration": book.is_demonstration,
        "created_at": book.created_at,
    }


def _rows(version: PriceBookVersion | None) -> list[dict[str, Any]]:
    return [row.as_json() for row in services.rows_of(version)] if version else []


def _read(listed: Sequence[Any]) -> list[PriceRow]:
    rows, errors = [], []
    for index, fields in enumerate(listed):
        row, wrong = read_row(fields, path=f"prices.{index}")
        rows += [row] if row else []
        errors += wrong
    if errors:
        raise ValidationFailed(fields=errors)
    return rows


def _tags(request: Request, name: str, *, weak: bool = False) -> frozenset[str] | None:
    """Return the tags that a header names, without their quotes; None without the header.

    weak: whether a weak tag counts as its strong one, which is never so for `If-Match`.
    """
    text = request.headers.get(name)
    if text is None:
        return None
    found = set()
    for part in (part.strip() for part in text.split(",")):
        is_weak, opaque = part.startswith("W/"), part.removeprefix("W/")
        if part != services.ANY_TAG and not (len(opaque) > 1 and opaque[0] == opaque[-1] == '"'):
            raise InvalidRequest(_("`%(name)s` lists ETags in quotes, or is *.") % {"name": name})
        if weak or not is_weak:
            found.add(opaque.strip('"'))
    return frozenset(found)


def _required_tags(request: Request) -> frozenset[str]:
    tags = _tags(request, "If-Match")
    if tags is None:
        raise services.PreconditionRequired
    return tags
