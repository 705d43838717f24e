"""What every template keeps: nothing inline, nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.template import engines

from apps.core.http import brand

TEMPLATES = sorted((Path(settings.ROOT) / "templates").rglob("*.html"))
# A block of JSON is data: no browser runs it, and no policy asks about it.
SCRIPT = r"<script(?![^>]*\s(?:src=|type=\"application/json\"))"
INLINE = re.compile(rf"<style|\sstyle=|\son[a-z]+=\"|{SCRIPT}|hx-on|javascript:", re.IGNORECASE)
ELSEWHERE = re.compile(r"(?:src|href|action)=\"(?:https?:)?//", re.IGNORECASE)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(settings.ROOT)))
def test_nothing_is_inline_or_foreign_and_all_compile(path):
    text = path.read_text(encoding="utf-8")

    assert not INLINE.search(text)
    assert not ELSEWHERE.search(text)
    engines["django"].get_template(str(path.relative_to(Path(settings.ROOT) / "templates")))


@pytest.mark.parametrize("name", ["500.html", "503.html"])
def test_the_pages_of_an_outage_need_no_database(name):
    page = engines["django"].get_template(name).render(brand.facts())

    assert settings.BRAND_NAME in page
