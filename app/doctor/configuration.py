"""Settings that contradict each other, or do nothing."""

import difflib
import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from app.doctor.finding import Finding, fault, fine, note
from app.errors import InvalidSetting
from app.settings import Settings
from app.web.guard import allowed_names, believed, is_loopback

PREFIX = "SAESCOPE_"
OTHERS = {"DEBUG", "TEST_CACHE"}  # read elsewhere than in Settings


def configuration(settings: Settings, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    found = [*_unknown(environment), *_reached(settings), *_engine(settings)]
    yield from found
    if not found:
        yield fine("settings", "none contradicts another")


def _unknown(environment: Mapping[str, str]) -> Iterator[Finding]:
    names = {name.upper() for name in Settings.model_fields} | OTHERS
    for name in sorted(environment):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in names:
            near = difflib.get_close_matches(name.removeprefix(PREFIX), names, 1)
            meant = f" Is {PREFIX}{near[0]} meant?" if near else ""
            yield fault("settings", f"{name} is no setting.{meant}", "Rename or unset it; docs/settings.md lists all.")


def _reached(settings: Settings) -> Iterator[Finding]:
    """Who can ask."""
    try:
        list(believed(settings))
    except InvalidSetting as error:
        yield fault("settings", error.message, "Give addresses or networks, separated by commas.")
    if settings.oidc_issuer and not settings.oidc_client_id:
        yield fault(
            "settings", "SAESCOPE_OIDC_ISSUER is set, but not what this instance is called there.",
            "Set SAESCOPE_OIDC_CLIENT_ID, and the secret if there is one.",
        )  # fmt: skip
    if is_loopback(settings.host):
        if settings.proxies and not settings.allowed_hosts:
            yield fault(
                "settings", "SAESCOPE_PROXIES is set, but no name that a proxy would ask for is answered.",
                "Set SAESCOPE_ALLOWED_HOSTS to the proxy's public name.",
            )  # fmt: skip
        return
    if allowed_names(settings) is None:
        yield note(
            "settings", f"On {settings.host} the server answers to any name.",
            "Set SAESCOPE_ALLOWED_HOSTS to the public name, and put a proxy with TLS in front.",
        )  # fmt: skip
    if not settings.team:
        yield note(
            "settings", f"On {settings.host} others reach the server, and local mode has no accounts: saescope serve "
            "will refuse.", "Set SAESCOPE_MODE=team.",
        )  # fmt: skip
    if settings.client_requests == 0 or settings.client_tokens == 0:
        yield note(
            "settings", "Others can reach the server, and one client may take the model for itself.",
            "Unset SAESCOPE_CLIENT_REQUESTS and SAESCOPE_CLIENT_TOKENS for the usual limits.",
        )  # fmt: skip


def _engine(settings: Settings) -> Iterator[Finding]:
    """Where prompts are read."""
    if settings.infer_urls:
        if settings.engine_gb is not None or settings.device != "auto":
            yield note(
                "settings", "SAESCOPE_ENGINE_GB and SAESCOPE_DEVICE say nothing here for prompts: the inference "
                "service has its own.", "Set them where saescope infer runs.",
            )  # fmt: skip
        away = [url for url in settings.infer_urls if not is_loopback(urlsplit(url).hostname or "")]
        if away and not settings.infer_token:
            yield fault(
                "settings", "SAESCOPE_INFER_URL names another machine, whose service wants a token, and none is set.",
                "Set SAESCOPE_INFER_TOKEN to the secret that the service has.",
            )  # fmt: skip
    if settings.max_prompt_chars < settings.max_prompt_tokens:
        yield note(
            "settings", f"SAESCOPE_MAX_PROMPT_CHARS ({settings.max_prompt_chars:,}) is below "
            f"SAESCOPE_MAX_PROMPT_TOKENS ({settings.max_prompt_tokens:,}), so no text reaches the latter.",
            "Raise the characters.",
        )  # fmt: skip
