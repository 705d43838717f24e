"""`manage.py errors_reference`: docs/errors.md from the error classes."""

from importlib import import_module
from pkgutil import walk_packages

import apps
from apps.core import reference
from apps.core.management.generated import GeneratedFileCommand


class Command(GeneratedFileCommand):
    """Print docs/errors.md."""

    help = "Prints docs/errors.md, generated from the error classes; --check compares."
    path = "docs/errors.md"
    requires_system_checks = ()

    def generate(self) -> str:
        # An error may be raised by what no view needs, such as a command.
        for module in walk_packages(apps.__path__, "apps."):
            if not {"migrations", "__main__"} & set(module.name.split(".")):
                import_module(module.name)
        return reference.errors_reference()
