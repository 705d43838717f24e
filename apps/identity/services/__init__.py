"""Every write to people: accounts, passwords, second factors."""

from apps.identity.services.codes import (
    CodeRefused,
    CodesThrottled,
    authenticator_of,
    device_of,
    take_code,
    totp_secret_works,
    verifying_device,
)
from apps.identity.services.passwords import mail_password_reset, request_password_reset, unmailed_resets
from apps.identity.services.people import (
    CHANGEABLE,
    EmailTaken,
    change_user,
    create_staff,
    create_user,
    credentials_work,
    set_password,
)
from apps.identity.services.signup import (
    SignUpClosed,
    confirm_sign_up,
    find_sign_up,
    forget_old_requests,
    mail_account_exists,
    mail_sign_up,
    request_sign_up,
    token_of,
    unmailed_sign_ups,
)

__all__ = [
    "CHANGEABLE",
    "CodeRefused",
    "CodesThrottled",
    "EmailTaken",
    "SignUpClosed",
    "authenticator_of",
    "change_user",
    "confirm_sign_up",
    "create_staff",
    "create_user",
    "credentials_work",
    "device_of",
    "find_sign_up",
    "forget_old_requests",
    "mail_account_exists",
    "mail_password_reset",
    "mail_sign_up",
    "request_password_reset",
    "request_sign_up",
    "set_password",
    "take_code",
    "token_of",
    "totp_secret_works",
    "unmailed_resets",
    "unmailed_sign_ups",
    "verifying_device",
]
