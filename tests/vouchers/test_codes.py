"""The form of a code: people can type it, and a mistake is seen without asking the database."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from apps.vouchers import codes

made = st.text(alphabet=codes.ALPHABET, min_size=15, max_size=15).map(
    lambda random: random + codes._check_character(random)
)


def test_a_new_code_is_four_groups_without_characters_that_look_alike():
    found = {codes.generate() for _number in range(200)}

    assert len(found) == 200
    for code in found:
        assert re.fullmatch(r"([2-9A-HJKMNP-Z]{4}-){3}[2-9A-HJKMNP-Z]{4}", code)
        assert codes.normalize(code) == code.replace("-", "")


@given(made)
def test_case_spaces_and_hyphens_do_not_matter(code):
    typed = f"  {code[:4].lower()} {code[4:9]}-{code[9:]}\n"

    assert codes.normalize(typed) == code


@given(made, st.integers(0, 15), st.sampled_from(codes.ALPHABET))
def test_every_single_mistyped_character_is_found(code, place, other):
    typed = code[:place] + other + code[place + 1 :]

    assert codes.normalize(typed) == (code if other == code[place] else None)


@given(made, st.integers(0, 15), st.integers(0, 15))
def test_every_two_characters_that_changed_places_are_found(code, one, two):
    letters = list(code)
    letters[one], letters[two] = letters[two], letters[one]

    assert codes.normalize("".join(letters)) == (code if code[one] == code[two] else None)


@given(st.text(max_size=100))
def test_whatever_is_typed_is_a_code_or_none(text):
    found = codes.normalize(text)

    assert found is None or (len(found) == 16 and set(found) <= set(codes.ALPHABET))


def test_what_is_stored_needs_the_servers_secret(settings):
    before = codes.digest("2" * 16)
    settings.API_KEY_PEPPER = b"another"

    assert len(before) == 32
    assert codes.digest("2" * 16) != before
