"""What a password must not be, said with what to choose instead."""

from __future__ import annotations

from django.contrib.auth import password_validation as stock
from django.utils.translation import gettext as _


class NotCommon(stock.CommonPasswordValidator):
    """Refuses what attackers try first."""

    def get_error_message(self) -> str:
        return _("This password is among those that are tried first. Choose three or four words of your own.")


class NotAboutYou(stock.UserAttributeSimilarityValidator):
    """Refuses what whoever knows the person would try."""

    def get_error_message(self) -> str:
        return _(
            "This password is too much like your %(verbose_name)s. Choose words that have nothing to do with you."
        )


class LongEnough(stock.MinimumLengthValidator):
    """Refuses what is soon tried through."""

    def get_error_message(self) -> str:
        return _(
            "This password is too short. Use at least %(characters)d characters, such as three or four words."
        ) % {"characters": self.min_length}
