"""The lists of the staff admin: each leads to its rows, and an empty one says why it is empty."""

from __future__ import annotations

from html.parser import HTMLParser

from django.contrib import admin
from django.test import RequestFactory
from django.utils import timezone

from tests import build
from tests.staff import staff_client


class Links(HTMLParser):
    """Notes each link that stands inside of another, which no browser opens."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.nested: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.depth += 1
            if self.depth > 1:
                self.nested.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        self.depth -= tag == "a"


def test_no_column_that_is_a_link_is_made_another(db):
    request = RequestFactory().get("/")
    request.user = build.user()
    for shown in admin.site._registry.values():
        links = shown.get_list_display_links(request, shown.get_list_display(request))

        assert not [name for name in links or () if str(name).endswith("_link")], shown


def test_a_list_leads_to_its_rows_and_to_their_organizations(db):
    build.credit(build.organization("lab"), "25", now=timezone.now())

    page = Links()
    page.feed(staff_client().get("/admin/billing/creditlot/").text)

    assert page.nested == []


def test_an_empty_list_says_why(db):
    staff = staff_client()

    assert "Rows appear by themselves" in staff.get("/admin/billing/creditlot/").text
    assert "Nothing fits the search" in staff.get("/admin/billing/creditlot/?q=nothing").text
