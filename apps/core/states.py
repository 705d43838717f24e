"""How something stands, in words."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A word, and the tone of the mark that repeats it: ok, info, caution, danger or none."""

    word: str | Promise
    tone: str = ""
