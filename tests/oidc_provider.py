"""A small OpenID Connect provider over HTTP: discovery, keys, the code flow with PKCE (S256 required) and a client
secret. It signs in whoever ``person`` says without asking; ``claims``, ``key`` and ``header`` make its tokens wrong."""

import base64
import hashlib
import json
import secrets
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "saescope-here", "the provider's secret"
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})  # of the same name


class Provider:
    def __init__(self):
        self.person = {"sub": "248289761001", "preferred_username": "ada"}
        self.claims, self.key, self.alg = {}, KEY, "RS256"
        self.codes, self.asked, self.url, self.called = {}, [], "", None

    def issue(self, nonce):
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce, **self.person}
        claims |= self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.alg == "none":
            parts = ({"alg": "none"}, claims)
            return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."
        return jwt.encode({"alg": self.alg, "kid": "one"}, claims, self.key)


def handler(provider):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, status, body, **headers):
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", "content-length": len(data), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            given = {name: values[-1] for name, values in query.items()}
            url = provider.url
            if path == "/.well-known/openid-configuration":
                self.answer(200, {
                    "issuer": provider.called or url, "authorization_endpoint": f"{url}/authorize",
                    "token_endpoint": f"{url}/token", "jwks_uri": f"{url}/keys",
                })  # fmt: skip
            elif path == "/keys":
                self.answer(200, {"keys": [KEY.as_dict(private=False)]})
            elif path == "/authorize":
                provider.asked.append(given)
                fits = given["client_id"] == CLIENT and given["response_type"] == "code" and "openid" in given["scope"]
                if not fits or given.get("code_challenge_method") != "S256":
                    self.answer(400, {"error": "invalid_request"})
                    return
                code = secrets.token_urlsafe()
                provider.codes[code] = given
                to = f"{given['redirect_uri']}?{urlencode({'code': code, 'state': given['state'], 'iss': url})}"
                self.answer(302, {}, location=to)
            else:
                self.answer(404, {})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            given = {name: values[-1] for name, values in parse_qs(body).items()}
            asked = provider.codes.pop(given.get("code"), None)
            basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
            if self.headers.get("authorization") != f"Basic {basic}":
                self.answer(401, {"error": "invalid_client"})
                return
            digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if asked is None or challenge != asked["code_challenge"] or given["redirect_uri"] != asked["redirect_uri"]:
                self.answer(400, {"error": "invalid_grant"})
                return
            token = {"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "expires_in": 300}
            self.answer(200, token | {"id_token": provider.issue(asked["nonce"])})

    return Handler


@contextmanager
def provider_running():
    provider = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(provider))
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
