"""`rotate_signing_keys`: the next key signs from now on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from apps.core.actor import system_actor
from apps.credentials import services


class Command(BaseCommand):
    help = "Make the next signing key active; the retired one verifies tokens that are still on their way."

    def handle(self, **_options: Any) -> None:
        key = services.rotate_signing_keys(actor=system_actor("rotate_signing_keys"), now=timezone.now())
        self.stdout.write(f"Active: {key.kid}")
