"""The start page."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def start(request: HttpRequest) -> HttpResponse:
    """Say what this is and where to log in; in the development run also what is running."""
    return render(request, "portal/landing.html")


def start_live(request: HttpRequest) -> HttpResponse:
    """Return the part of the start page that changes by itself."""
    return render(request, "portal/landing.html")
