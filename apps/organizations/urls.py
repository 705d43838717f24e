"""Where organizations, members and projects are."""

from django.urls import path

from apps.organizations import api

api_urlpatterns = [
    path("orgs", api.OrganizationList.as_view(), name="organizations"),
    path("orgs/<slug:slug>", api.OrganizationDetail.as_view(), name="organization"),
    path("orgs/<slug:slug>/leave", api.Leave.as_view(), name="organization-leave"),
    path("orgs/<slug:slug>/transfer", api.Transfer.as_view(), name="organization-transfer"),
    path(
        "orgs/<slug:slug>/transfer/accept", api.TransferAccept.as_view(), name="organization-transfer-accept"
    ),
    path("orgs/<slug:slug>/members", api.MemberList.as_view(), name="members"),
    path("orgs/<slug:slug>/members/<uuid:member_id>", api.MemberDetail.as_view(), name="member"),
    path("orgs/<slug:slug>/projects", api.ProjectList.as_view(), name="projects"),
    path("orgs/<slug:slug>/projects/<uuid:project_id>", api.ProjectDetail.as_view(), name="project"),
]
