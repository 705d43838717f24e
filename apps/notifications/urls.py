"""The development mailbox."""

from django.urls import path

from apps.notifications import views

urlpatterns = [
    path("dev/mail", views.mails, name="dev-mails"),
    path("dev/mail/<uuid:mail_id>", views.mail, name="dev-mail"),
    path("dev/mail/<uuid:mail_id>/html", views.mail_html, name="dev-mail-html"),
]
