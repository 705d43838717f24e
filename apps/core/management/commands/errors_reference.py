"""`manage.py errors_reference`: docs/errors.md from the error classes."""

from importlib import import_module

from django.conf import settings

from apps.core import reference
from apps.core.management.generated import GeneratedFileCommand


class Command(GeneratedFileCommand):
    """Print docs/errors.md."""

    help = "Prints docs/errors.md, generated from the error classes; --check compares."
    path = "docs/errors.md"
    requires_system_checks = ()

    def generate(self) -> str:
        import_module(settings.ROOT_URLCONF)  # Brings in every view and with it every service.
        return reference.errors_reference()
