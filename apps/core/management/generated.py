"""The base of commands that print a generated file, or check the committed one."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser


class GeneratedFileCommand(BaseCommand):
    """Print the file, or with --check fail if the committed one differs."""

    path: ClassVar[str]

    @abstractmethod
    def generate(self) -> str:
        """Return the file's text."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="Fail if the committed file differs.")

    def handle(self, *, check: bool, **_options: Any) -> None:
        text = self.generate()
        if not check:
            self.stdout.write(text, ending="")
            return
        file = Path(settings.ROOT) / self.path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            command = type(self).__module__.rpartition(".")[2]
            raise CommandError(f"{self.path} has drifted: manage.py {command} > {self.path}")
