"""The operator's name, accent and logo as pages ask for them: from our own origin, kept by whoever asked once."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.csp import CSP
from django.views.decorators.csp import csp_override
from django.views.decorators.http import require_safe

from apps.core import brand

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_YEAR = 31_536_000
# Of the mark in static/img, which an accent colours.
_ICON_GROUND, _ICON_LINES = "#1e6a4a", "#fbfaf6"


def facts() -> dict[str, str]:
    """Return what every page says about the operator; it asks neither session nor database.

    brand_accent, brand_logo and brand_icon are addresses, empty where ours is shown.
    """
    accent, logo = settings.BRAND_ACCENT, settings.BRAND_LOGO
    mark = _address("brand-logo", _file(logo)) if logo else ""
    return {
        "brand_name": settings.BRAND_NAME,
        "brand_accent": _address("brand-accent", _stylesheet(accent)) if accent else "",
        "brand_logo": mark,
        "brand_icon": mark or (_address("brand-icon", _icon(accent)) if accent else ""),
    }


@require_safe
def accent(request: HttpRequest) -> HttpResponse:
    """Answer with the stylesheet of the accent."""
    if not settings.BRAND_ACCENT:
        raise Http404
    return _kept(request, _stylesheet(settings.BRAND_ACCENT), "text/css")


@require_safe
@csp_override({"default-src": [CSP.NONE], "style-src": [CSP.UNSAFE_INLINE]})
def logo(request: HttpRequest) -> HttpResponse:
    """Answer with the logo; opened by itself, it runs nothing and asks for nothing."""
    if settings.BRAND_LOGO is None:
        raise Http404
    return _kept(request, _file(settings.BRAND_LOGO), _TYPES[settings.BRAND_LOGO.suffix.lower()])


@require_safe
def icon(request: HttpRequest) -> HttpResponse:
    """Answer with our mark in the accent."""
    if not settings.BRAND_ACCENT:
        raise Http404
    return _kept(request, _icon(settings.BRAND_ACCENT), _TYPES[".svg"])


def _kept(request: HttpRequest, content: bytes, content_type: str) -> HttpResponse:
    """Return an answer that may be kept for a year if the address names this very content.

    While processes of two settings run side by side, an address of the other's is answered but not kept.
    """
    response = HttpResponse(content, content_type=content_type)
    is_named = request.GET.get("v") == _digest(content)
    response["Cache-Control"] = f"public, max-age={_YEAR}, immutable" if is_named else "no-cache"
    return response


def _address(name: str, content: bytes) -> str:
    return f"{reverse(name)}?{urlencode({'v': _digest(content)})}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


@cache
def _stylesheet(colour: str) -> bytes:
    return brand.stylesheet(colour).encode()


@cache
def _file(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _icon(colour: str) -> bytes:
    light, _dark = brand.accents(colour)
    mark = (Path(settings.ROOT) / "static/img/favicon.svg").read_text(encoding="utf-8")
    return mark.replace(_ICON_GROUND, light.accent).replace(_ICON_LINES, light.on).encode()
