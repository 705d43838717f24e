"""Finding anything of an organization by its name."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext_lazy as _

from apps.core.http.pages import OrganizationPage
from apps.core.http.views import AUTHENTICATED
from apps.portal.searching import search


class SearchForm(forms.Form):
    """What is looked for, and whether to go to the first thing found."""

    q = forms.CharField(
        label=_("Search"),
        max_length=100,
        required=False,
        widget=forms.TextInput(attrs={"type": "search", "autocomplete": "off", "spellcheck": "false"}),
    )
    go = forms.BooleanField(required=False, widget=forms.HiddenInput)


class Search(OrganizationPage):
    """What has some text in its name, as far as the person may read it."""

    permission = AUTHENTICATED
    template_name = "portal/search.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        """List what is found; with `go` lead to the first of it."""
        form = SearchForm(request.GET)
        if not form.is_valid():
            return self.render({"form": form}, status=422)
        text = form.cleaned_data["q"]
        hits = search(self.actor, self.organization, text, memberships=self.request.memberships, now=self.now)
        if form.cleaned_data["go"] and text and hits:
            return HttpResponseRedirect(hits[0].url)
        return self.render({"form": form, "hits": hits, "text": text})
