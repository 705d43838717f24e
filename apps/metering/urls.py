from django.urls import path

from apps.metering import api

api_urlpatterns = [
    path("usage/events", api.UsageEventsCreate.as_view(), name="usage-events"),
]
