"""Addresses of signing in, of accounts, and of what looks after them; in team mode alone."""

from app.urls.parts import query_of


def login(then: str = "") -> str:
    """then: where to go from there, an address of this site."""
    return "/login" + query_of(next=then)


def logout() -> str:
    return "/logout"


def provider_login(then: str = "") -> str:
    """To the OpenID Connect provider."""
    return "/login/provider" + query_of(next=then)


def provider_back() -> str:
    """Where the provider sends people back to; it has to know this address."""
    return "/login/provider/back"


def join(secret: str) -> str:
    return f"/join/{secret}"


def account() -> str:
    return "/account"


def account_json() -> str:
    return "/account.json"


def account_password() -> str:
    return "/account/password"


def account_sessions() -> str:
    """By POST, ends every session."""
    return "/account/sessions/end"


def account_provider(what: str) -> str:
    """``link`` or ``unlink``."""
    return f"/account/provider/{what}"


def tokens() -> str:
    return "/account/tokens"


def revoke_token(token: int) -> str:
    return f"/account/tokens/{token}/revoke"


def share(secret: str) -> str:
    return f"/share/{secret}"


def shares() -> str:
    """By POST, makes a link to a page."""
    return "/shares"


def revoke_share(share: int) -> str:
    return f"/shares/{share}/revoke"


def admin() -> str:
    return "/admin"


def admin_json() -> str:
    return "/admin.json"


def invitations() -> str:
    return "/admin/invitations"


def revoke_invitation(invitation: int) -> str:
    return f"/admin/invitations/{invitation}/revoke"


def change_account(account: int) -> str:
    """By POST, its role and whether it may sign in."""
    return f"/admin/accounts/{account}"


def password_link(account: int) -> str:
    return f"/admin/accounts/{account}/link"


def admin_revoke(what: str, number: int) -> str:
    """``tokens`` or ``shares``."""
    return f"/admin/{what}/{number}/revoke"


def audit(*, cursor: str | None = None) -> str:
    return "/admin/audit" + query_of(cursor=cursor)


def audit_json(*, cursor: str | None = None) -> str:
    return "/admin/audit.json" + query_of(cursor=cursor)


def audit_export() -> str:
    return "/admin/audit.jsonl"


def delete_run(run: str) -> str:
    """By POST, a kept prompt run is removed."""
    return f"/inspect/{run}/delete"


def show_run_to(run: str) -> str:
    """By POST, who may see a kept prompt run."""
    return f"/inspect/{run}/visibility"
