"""The app that has no tables: what every other app stands on."""

from importlib import import_module

from django.apps import AppConfig
from django.conf import settings
from django.utils.module_loading import autodiscover_modules


class CoreConfig(AppConfig):
    """Load the Celery application and every app's tasks, so that any process can queue a task by its name."""

    name = "apps.core"
    label = "core"

    def ready(self) -> None:
        import_module(settings.CELERY_APP)
        autodiscover_modules("tasks")
