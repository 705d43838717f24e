"""The operator's accent is readable whatever colour was given; without one everything is as it was."""

from __future__ import annotations

import math
import re

import pytest
from django.conf import settings as ours
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from apps.core import brand
from apps.core.http import brand as pages
from apps.notifications.rendering import render
from config.environment import Environment

COLOURS = st.integers(0, 0xFFFFFF).map("#{:06x}".format)
ORANGE = "#ff6600"


@settings(max_examples=40, deadline=None)
@given(COLOURS)
def test_every_pair_of_text_and_ground_is_readable(colour):
    for scheme, grounds in zip(brand.accents(colour), (brand.LIGHT_GROUNDS, brand.DARK_GROUNDS), strict=True):
        for text in (scheme.accent, scheme.strong):
            for other in (*grounds, scheme.soft, scheme.on):
                assert brand.contrast(text, other) >= brand.CONTRAST_MIN, (text, other)


@settings(max_examples=40, deadline=None)
@given(COLOURS)
def test_a_colour_that_is_readable_stays_as_it_is(colour):
    for given_again in (brand.accents(colour)[0].accent, colour):
        light, dark = brand.accents(given_again)
        if all(
            brand.contrast(given_again, other) >= brand.CONTRAST_MIN
            for other in (*brand.LIGHT_GROUNDS, light.soft, light.on)
        ):
            assert light.accent == given_again
        if all(
            brand.contrast(given_again, other) >= brand.CONTRAST_MIN
            for other in (*brand.DARK_GROUNDS, dark.soft, dark.on)
        ):
            assert dark.accent == given_again


@pytest.mark.parametrize(
    ("one", "other", "contrast"),
    [("#000000", "#ffffff", 21), ("#777777", "#ffffff", 4.48), ("#ff0000", "#0000ff", 2.15)],
)
def test_contrast_is_that_of_wcag(one, other, contrast):
    assert round(brand.contrast(one, other), 2) == round(brand.contrast(other, one), 2) == contrast


def test_the_accent_is_measured_on_the_grounds_of_the_pages():
    tokens = (ours.ROOT / "static/css/tokens.css").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for name in ("paper", "surface", "sunken"):
        line = re.search(rf"--{name}: light-dark\((.+)\);", tokens)
        found[name] = [
            brand.shown((float(lightness), float(chroma), math.radians(float(hue))))
            for lightness, chroma, hue in re.findall(r"oklch\(([\d.]+) ([\d.]+) ([\d.]+)\)", line[1])
        ]

    assert list(zip(*found.values(), strict=True)) == [brand.LIGHT_GROUNDS, brand.DARK_GROUNDS]


@pytest.mark.django_db
def test_an_accent_is_a_stylesheet_of_our_own_that_is_kept(client, settings):
    settings.BRAND_ACCENT, settings.BRAND_NAME = ORANGE, "Ferro"
    page = client.get("/accounts/login/").text
    address = re.search(r'href="(/brand/accent\.css\?v=\w+)"', page)[1]

    answer, unnamed = client.get(address), client.get("/brand/accent.css")

    assert answer.headers["Content-Type"] == "text/css"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert unnamed.headers["Cache-Control"] == "no-cache"
    assert not answer.cookies
    assert brand.accents(ORANGE)[0].accent in answer.text
    assert page.index("/brand/accent.css") > page.index("css/tokens.css"), "the later rule wins"
    icon = client.get(re.search(r'<link rel="icon" href="([^"]+)"', page)[1])
    assert icon.headers["Content-Type"] == "image/svg+xml"
    assert brand.accents(ORANGE)[0].accent in icon.text
    assert "/brand/accent.css" in client.get("/admin/login/", follow=True).text


@pytest.mark.django_db
def test_a_logo_stands_beside_the_name_and_runs_nothing(client, settings, tmp_path):
    settings.BRAND_LOGO = tmp_path / "mark.SVG"
    settings.BRAND_LOGO.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page = client.get("/accounts/login/").text
    address = pages.facts()["brand_logo"]

    answer = client.get(address)

    assert f'<img class="brand__logo" src="{address}" alt="">' in page
    assert f'<link rel="icon" href="{address}">' in page
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert answer.text == settings.BRAND_LOGO.read_text()


@pytest.mark.django_db
def test_without_them_nothing_is_different(client):
    page = client.get("/accounts/login/").text

    assert "brand/" not in page
    assert '<link rel="icon" href="/static/img/favicon.svg" type="image/svg+xml">' in page
    for path in ("/brand/accent.css", "/brand/logo", "/brand/icon.svg"):
        assert client.get(path).status_code == 404


def test_mails_have_the_accent_in_both_schemes(settings):
    facts = {"organization": "Acme", "role": "Developer", "link": "https://portal.example.com/x"}
    plain = render("organizations/mail/invite", facts).html
    settings.BRAND_ACCENT = ORANGE

    html = render("organizations/mail/invite", facts).html

    light, dark = brand.accents(ORANGE)
    assert f'class="button" style="border-radius: 6px;background-color: {light.accent};' in html
    assert f"background-color: {dark.accent} !important" in html
    assert light.accent not in plain


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("BRAND_ACCENT", "orange", "brand_accent"),
        ("BRAND_LOGO", "/nowhere/mark.svg", "cannot be read"),
        ("BRAND_LOGO", __file__, "ends in .svg or .png"),
    ],
)
def test_what_cannot_be_shown_stops_the_start(monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)

    with pytest.raises(ValidationError, match=words):
        Environment()
