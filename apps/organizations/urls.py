"""Where organizations, members, invites and projects are."""

from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.core.http.navigation import Section
from apps.core.permissions import Permission
from apps.organizations.api import billing_profile, invites, members, organization, projects
from apps.organizations.views import home
from apps.organizations.views import invites as invite_pages
from apps.organizations.views import members as member_pages
from apps.organizations.views import projects as project_pages
from apps.organizations.views import settings as settings_pages

api_urlpatterns = [
    path("orgs", organization.OrganizationList.as_view(), name="organizations"),
    path("orgs/<slug:slug>", organization.OrganizationDetail.as_view(), name="organization"),
    path("orgs/<slug:slug>/leave", members.Leave.as_view(), name="organization-leave"),
    path("orgs/<slug:slug>/transfer", members.Transfer.as_view(), name="organization-transfer"),
    path(
        "orgs/<slug:slug>/transfer/accept",
        members.TransferAccept.as_view(),
        name="organization-transfer-accept",
    ),
    path(
        "orgs/<slug:slug>/transfer/decline",
        members.TransferDecline.as_view(),
        name="organization-transfer-decline",
    ),
    path(
        "orgs/<slug:slug>/billing-profile",
        billing_profile.BillingProfileDetail.as_view(),
        name="billing-profile",
    ),
    path("orgs/<slug:slug>/members", members.MemberList.as_view(), name="members"),
    path("orgs/<slug:slug>/members/<uuid:member_id>", members.MemberDetail.as_view(), name="member"),
    path("orgs/<slug:slug>/invites", invites.InviteList.as_view(), name="invites"),
    path("orgs/<slug:slug>/invites/<uuid:invite_id>", invites.InviteDetail.as_view(), name="invite"),
    path(
        "orgs/<slug:slug>/invites/<uuid:invite_id>/resend",
        invites.InviteResend.as_view(),
        name="invite-resend",
    ),
    path("invites/mine", invites.ReceivedInviteList.as_view(), name="invites-mine"),
    path("invites/mine/<uuid:invite_id>/accept", invites.InviteAccept.as_view(), name="invite-mine-accept"),
    path(
        "invites/mine/<uuid:invite_id>/decline", invites.InviteDecline.as_view(), name="invite-mine-decline"
    ),
    path("invites/<str:token>", invites.InviteByToken.as_view(), name="invite-by-token"),
    path("invites/<str:token>/accept", invites.InviteAccept.as_view(), name="invite-accept"),
    path("invites/<str:token>/decline", invites.InviteDecline.as_view(), name="invite-decline"),
    path("orgs/<slug:slug>/projects", projects.ProjectList.as_view(), name="projects"),
    path("orgs/<slug:slug>/projects/<uuid:project_id>", projects.ProjectDetail.as_view(), name="project"),
]

navigation = [
    Section(
        key="members",
        label=_("Members"),
        route="members",
        permission=Permission.MEMBERS_READ,
        position=200,
        letter="m",
    ),
    Section(
        key="projects",
        label=_("Projects"),
        route="projects",
        permission=Permission.PROJECTS_READ,
        position=220,
        letter="p",
    ),
    Section(
        key="settings",
        label=_("Settings"),
        route="settings",
        permission=Permission.ORGANIZATION_READ,
        position=240,
        letter="s",
    ),
]

urlpatterns = [
    path("app/", home.Home.as_view(), name="home"),
    path("app/switch", home.Switch.as_view(), name="switch"),
    path("app/new", home.NewOrganization.as_view(), name="new-organization"),
    path("app/invites/mine", invite_pages.Received.as_view(), name="my-invites"),
    path("app/invites/mine/<uuid:invite_id>", invite_pages.AnswerReceived.as_view(), name="answer-my-invite"),
    path("app/invites/<str:token>", invite_pages.ByToken.as_view(), name="invite-by-link"),
    path("app/<slug:slug>/members", member_pages.Members.as_view(), name="members"),
    path("app/<slug:slug>/members/<uuid:member_id>", member_pages.Member.as_view(), name="member"),
    path(
        "app/<slug:slug>/members/<uuid:member_id>/remove",
        member_pages.RemoveMember.as_view(),
        name="remove-member",
    ),
    path(
        "app/<slug:slug>/invites/<uuid:invite_id>", member_pages.InviteAction.as_view(), name="invite-action"
    ),
    path("app/<slug:slug>/leave", member_pages.Leave.as_view(), name="leave"),
    path("app/<slug:slug>/projects", project_pages.Projects.as_view(), name="projects"),
    path("app/<slug:slug>/projects/<uuid:project_id>", project_pages.ProjectPage.as_view(), name="project"),
    path("app/<slug:slug>/settings", settings_pages.Settings.as_view(), name="settings"),
    path(
        "app/<slug:slug>/settings/second-factor",
        settings_pages.SecondFactorPolicy.as_view(),
        name="second-factor-policy",
    ),
    path("app/<slug:slug>/settings/billing", settings_pages.BillingDetails.as_view(), name="billing-details"),
    path("app/<slug:slug>/transfer", settings_pages.Transfer.as_view(), name="transfer"),
    path(
        "app/<slug:slug>/transfer/withdraw",
        settings_pages.WithdrawTransfer.as_view(),
        name="withdraw-transfer",
    ),
    path("app/<slug:slug>/transfer/accept", settings_pages.AcceptTransfer.as_view(), name="accept-transfer"),
    path(
        "app/<slug:slug>/transfer/decline", settings_pages.DeclineTransfer.as_view(), name="decline-transfer"
    ),
    path("app/<slug:slug>/delete", settings_pages.Deletion.as_view(), name="delete-organization"),
]
