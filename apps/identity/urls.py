"""Where accounts are, besides allauth's own pages."""

from django.urls import path

from apps.identity import views

urlpatterns = [
    path("accounts/confirm/<str:token>/", views.confirm_sign_up, name="sign-up-confirm"),
]
