"""Swagger UI works under the strict content security policy."""

from __future__ import annotations


def test_the_api_page_lists_operations_and_breaks_no_policy(open_page):
    page = open_page()

    page.goto("/api/docs")

    page.locator("#operations-tag-usage").click()
    page.get_by_text("/api/v1/usage/events").click()
    page.get_by_role("button", name="Try it out").first.wait_for()
