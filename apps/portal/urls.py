"""The pages outside any organization."""

from django.urls import path

from apps.portal import views

urlpatterns = [
    path("", views.start, name="start"),
    path("start/live", views.start_live, name="start-live"),
    path("start/code", views.start_code, name="start-code"),
]
