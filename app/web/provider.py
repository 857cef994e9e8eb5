"""An OpenID Connect provider, asked by the authorization code flow with PKCE: OpenID Connect Core 1.0, section 3.1, and
RFC 7636. Blocking: it is called in a thread."""

import asyncio
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from app.errors import LoginRefused
from app.settings import Settings
from app.web.answers import Answers
from app.web.provider_signins import Pending, Person

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
PATIENCE_S = 10.0
LEEWAY_S = 60  # that two clocks may differ
AT_ONCE, WAITED_S = 4, 30.0
T = TypeVar("T")


class Provider:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._issuer = settings.oidc_issuer.strip()
        self._pool = ThreadPoolExecutor(AT_ONCE, "provider")  # its own: whoever signs in by password waits for nobody
        self.answers = Answers(self._get)

    async def ask(self, work: Callable[[], T]) -> T:
        """Do ``begin`` or ``finish`` in a thread.

        Raises:
            LoginRefused: it takes too long.
        """
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._pool, work), WAITED_S)
        except TimeoutError:
            raise LoginRefused("The provider does not answer in time; try again later.") from None

    def begin(self, redirect: str, pending: Pending) -> str:
        """Where to send the browser."""
        about = self._about()
        session = self._session(redirect)
        url, _ = session.create_authorization_url(
            self._endpoint(about, "authorization_endpoint"), state=pending.state, nonce=pending.nonce,
            code_verifier=pending.verifier,
        )  # fmt: skip
        return str(url)

    def finish(self, redirect: str, pending: Pending, *, state: str, code: str, issuer: str | None = None) -> Person:
        """Whom the provider says it is.

        Raises:
            LoginRefused: this is not the answer to what was asked, or the token is not the provider's, not for this
                instance, of another issuer, too old, or of another sign-in.
        """
        if not state or not hmac.compare_digest(state.encode(), pending.state.encode()):
            raise LoginRefused("This answer belongs to another sign-in; begin again.")
        if issuer is not None and issuer != self._issuer:  # RFC 9207
            raise LoginRefused("This answer is of another provider; begin again.")
        about = self._about()
        try:
            token = self._session(redirect).fetch_token(
                self._endpoint(about, "token_endpoint"), code=code, code_verifier=pending.verifier,
                grant_type="authorization_code", redirect_uri=redirect, timeout=PATIENCE_S, allow_redirects=False,
            )  # fmt: skip
        except (OAuthError, requests.RequestException, ValueError) as error:
            raise LoginRefused(
                f"The provider did not take the sign-in ({type(error).__name__}); begin again."
            ) from None
        claims = self._checked(str(token.get("id_token") or ""), token.get("access_token"), about, pending.nonce)
        told = next((claims[key] for key in ("preferred_username", "name", "email") if claims.get(key)), "")
        return Person(self._issuer, str(claims["sub"])[:255], str(told).partition("@")[0])

    def _checked(self, id_token: str, access_token: object, about: dict[str, Any], nonce: str) -> CodeIDToken:
        """
        Raises:
            LoginRefused.
        """
        try:
            decoded = self._decoded(id_token, self._endpoint(about, "jwks_uri"))
            options = {
                "iss": {"essential": True, "value": self._issuer},
                "aud": {"essential": True, "value": self._settings.oidc_client_id},
                "sub": {"essential": True},
                "exp": {"essential": True},
            }
            params = {"nonce": nonce, "client_id": self._settings.oidc_client_id, "access_token": access_token}
            claims = CodeIDToken(decoded.claims, decoded.header, options, params)
            claims.validate(leeway=LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise LoginRefused(f"The provider's answer does not hold ({type(error).__name__}); begin again.") from None
        if not isinstance(claims["sub"], str) or not claims["sub"] or "\0" in claims["sub"]:
            raise LoginRefused("The provider did not say who this is.")
        return claims

    def _decoded(self, id_token: str, keys_at: str) -> jwt.Token:
        """By the keys that are known; where they do not fit, the provider may have newer ones."""
        try:
            return self._decoded_by(self.answers.get(keys_at), id_token)
        except (JoseError, ValueError):
            return self._decoded_by(self._get(keys_at), id_token)

    @staticmethod
    def _decoded_by(found: dict[str, Any], id_token: str) -> jwt.Token:
        return jwt.decode(id_token, KeySet.import_key_set({"keys": found["keys"]}), algorithms=ALGORITHMS)

    def _about(self) -> dict[str, Any]:
        about = self.answers.get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if about.get("issuer") != self._issuer:
            self.answers.forget()
            raise LoginRefused(
                f"The provider calls itself {str(about.get('issuer'))[:100]!r}, SAESCOPE_OIDC_ISSUER says otherwise."
            )
        return about

    def _get(self, url: str) -> dict[str, Any]:
        try:
            answer = requests.get(url, timeout=PATIENCE_S, allow_redirects=False)
            answer.raise_for_status()
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise LoginRefused(f"The provider does not answer ({type(error).__name__}); try again later.") from None
        if not isinstance(found, dict):
            raise LoginRefused("The provider's answer is not understood.")
        return found

    def _endpoint(self, about: dict[str, Any], name: str) -> str:
        """An address of the provider; with TLS where its own has that."""
        url = str(about.get(name) or "")
        if not url.startswith("https://") and not (url.startswith("http://") and self._issuer.startswith("http://")):
            raise LoginRefused(f"The provider names no {name} that can be used.")
        return url

    def _session(self, redirect: str) -> OAuth2Session:
        return OAuth2Session(
            self._settings.oidc_client_id, self._settings.oidc_client_secret, scope="openid profile",
            redirect_uri=redirect, code_challenge_method="S256",
        )  # fmt: skip
