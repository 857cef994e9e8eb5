"""What the pages of accounts show, typed; and what their forms may say. No hash and no secret is among it."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from app.roles import Role, Scope, Visibility
from app.web.fields import Label

Line = Annotated[Label, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Days = Annotated[int, Field(ge=1, le=365)]


class TokenView(BaseModel):
    id: int
    account: str
    name: str
    scope: Scope
    made: datetime
    expires: datetime | None
    used: datetime | None


class ShareView(BaseModel):
    id: int
    account: str
    address: str
    made: datetime
    expires: datetime


class AccountPage(BaseModel):
    """/account and its twin: whoever asks."""

    name: str
    role: Role
    has_password: bool
    provider: str | None
    provider_subject: str | None
    tokens: list[TokenView]
    shares: list[ShareView]


class AccountView(BaseModel):
    id: int
    name: str
    role: Role
    has_password: bool
    linked: bool
    disabled: bool
    made: datetime


class InvitationView(BaseModel):
    id: int
    role: Role | None
    account: str | None
    made_by: str
    expires: datetime


class AdminPage(BaseModel):
    """/admin and its twin."""

    accounts: list[AccountView]
    invitations: list[InvitationView]
    tokens: list[TokenView]
    shares: list[ShareView]
    public_read: bool


class AuditView(BaseModel):
    id: int
    at: datetime
    who: str
    client: str
    action: str
    address: str
    detail: dict[str, Any]


class AuditPage(BaseModel):
    """/admin/audit and its twin, the newest first."""

    items: list[AuditView]
    next: str | None
    cursor: str | None


class LoginForm(BaseModel):
    name: Annotated[str, Field(max_length=1000)] = ""
    password: Annotated[str, Field(max_length=5000)] = ""
    next: str = ""


class JoinForm(BaseModel):
    name: Annotated[Label, Field(max_length=1000)] = ""
    password: Annotated[str, Field(max_length=5000)] = ""
    again: Annotated[str, Field(max_length=5000)] = ""


class PasswordForm(BaseModel):
    now: Annotated[str, Field(max_length=5000)] = ""
    password: Annotated[str, Field(max_length=5000)] = ""
    again: Annotated[str, Field(max_length=5000)] = ""


class TokenForm(BaseModel):
    name: Line
    scope: Scope
    days: Days | None = None


class ShareForm(BaseModel):
    """POST /shares and /api/shares: a link to the page at ``address`` alone."""

    address: Annotated[Label, Field(max_length=500, description="The page's path: a list, kept run, feature or SAE.")]
    days: Days = Field(default=30, description="How long the link works, in days.")


class ShareMade(BaseModel):
    """The link is shown this once: its hash alone is kept."""

    url: str = Field(description="The link.")
    address: str = Field(description="The page that it opens.")
    days: int = Field(description="How long it works, in days.")


class InvitationForm(BaseModel):
    role: Role


class ChangeForm(BaseModel):
    role: Role | None = None
    disabled: bool | None = None


class VisibilityForm(BaseModel):
    visibility: Visibility
