"""`manage.py settings_reference`: docs/settings.md from the settings class."""

from apps.core import reference
from apps.core.management.generated import GeneratedFileCommand


class Command(GeneratedFileCommand):
    """Print docs/settings.md."""

    help = "Prints docs/settings.md, generated from the settings class; --check compares."
    path = "docs/settings.md"
    requires_system_checks = ()

    def generate(self) -> str:
        return reference.settings_reference()
