"""Every setting, typed. Each can be given in the environment with the prefix ``SAESCOPE_``."""

import os
import re
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import InvalidSetting


def default_home() -> Path:
    """Where data lives when SAESCOPE_HOME is unset.

    As root it is /var/lib/saescope: the embedded Postgres makes the parents of its folder world-readable,
    which /root must never become.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/saescope")
    return user_data_path("saescope", appauthor=False)


class Settings(BaseSettings):
    """saescope's settings; docs/settings.md lists them for users and a test keeps the two in step."""

    model_config = SettingsConfigDict(env_prefix="SAESCOPE_", env_ignore_empty=True, extra="ignore")

    home: Path = Field(default_factory=default_home, description="Folder for the database, models and SAEs")
    database_url: str | None = Field(
        default=None, description="A PostgreSQL server with pgvector; unset starts the embedded one"
    )
    host: str = Field(default="127.0.0.1", description="Address the web server listens on")
    port: int = Field(default=8000, ge=1, le=65535, description="Port the web server listens on")
    allowed_hosts: str = Field(
        default="", description="More names this server answers to, separated by commas; behind a proxy, its name"
    )
    proxies: str = Field(
        default="",
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed, by commas",
    )
    mode: Literal["local", "team"] = Field(
        default="local", description="local: no accounts, on this machine alone; team: whoever asks signs in"
    )
    public_read: bool = Field(
        default=False, description="In team mode, whether pages are read, and texts tried, without signing in"
    )
    oidc_issuer: str = Field(default="", description="An OpenID Connect provider to sign in by, as it names itself")
    oidc_client_id: str = Field(default="", description="What this instance is called there")
    oidc_client_secret: str | None = Field(default=None, repr=False, description="Its secret there")
    oidc_name: str = Field(default="single sign-on", max_length=60, description="What the button calls the provider")
    oidc_role: Literal["none", "viewer", "editor"] = Field(
        default="none", description="Role of accounts made at the first sign-in by the provider; none makes no accounts"
    )
    outside: str = Field(
        default="",
        description="Addresses that endpoints and imports may name in team mode, as beginnings such as https://a.org/v1",
    )
    query_seconds: float | None = Field(
        default=None, ge=0, description="How long a page's query may take, 0 any; unset is 60 in team mode, else any"
    )
    account_kept: int = Field(
        default=1000, ge=1, description="Lists that one account may have in team mode, and as many kept prompt runs"
    )
    account_upload_mb: int = Field(
        default=1000, ge=1, description="Megabytes that one account may send in a day in team mode"
    )
    worker: bool = Field(default=True, description="Whether the server runs the harvests started from the site")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="The subject's dtype; auto is bfloat16 where the hardware has it"
    )
    sae_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="The dtype of an SAE's matrices; bfloat16 rounds what fires at the edge"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where tensors live")
    engine_gb: float | None = Field(
        default=None, gt=0, description="Memory of the device that subjects and SAEs for prompts may take; unset is 60%"
    )
    engine_waiting: int = Field(
        default=256, ge=1, description="Prompts that may wait for the model; more are refused with 503 at once"
    )
    infer_url: str = Field(
        default="", description="Inference services to ask, separated by commas; unset is an engine in the web server"
    )
    infer_token: str | None = Field(
        default=None, repr=False, description="The secret that the web server and its inference services share"
    )
    infer_folders: str = Field(
        default="", description="More folders an inference service reads from, separated by commas, beside its home"
    )
    llm_url: str = Field(
        default="", description="An OpenAI-compatible endpoint that explains latents, up to and with its /v1"
    )
    llm_model: str = Field(default="", description="The model there that explains and scores")
    llm_key: str | None = Field(default=None, repr=False, description="The endpoint's key; sent to no other address")
    llm_price_in: float | None = Field(
        default=None, ge=0, description="What a million tokens of prompt cost there, in USD; unset is what it tells"
    )
    llm_price_out: float | None = Field(default=None, ge=0, description="The same of answers")
    llm_per_hour: int = Field(
        default=20, ge=0, description="Explanations that features' pages may ask the model for in an hour; 0: none"
    )
    llm_usd_per_day: float | None = Field(
        default=None, gt=0, description="What runs started from pages may bring a day's cost of the model to, in USD"
    )
    embeddings: Path | None = Field(
        default=None,
        description="Folder of the sentence model that explanations are searched with; unset is all-MiniLM-L6-v2",
    )
    max_prompt_tokens: int = Field(
        default=4096, ge=2, description="Longest text /inspect takes, in tokens; the subject's own limit holds as well"
    )
    max_prompt_chars: int = Field(
        default=40_000,
        ge=1,
        description="Longest text /inspect takes, in characters, checked before tokenising",
    )
    max_new_tokens: int = Field(default=512, ge=1, description="Most tokens that a text goes on for at /intervene")
    client_requests: int | None = Field(
        default=None,
        ge=0,
        description="Requests to the model that one client may have at once, 0 any; unset is 8, on loopback any",
    )
    client_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Tokens a minute that one client may have read, 0 any; unset is 100,000, on loopback any",
    )
    batch_tokens: int = Field(default=8192, ge=16, description="Tokens in one harvest or inspection batch")
    checkpoint_seconds: float = Field(
        default=20.0, ge=0, description="How often a harvest writes a checkpoint; 0 is after every batch"
    )
    metrics_token: str | None = Field(
        default=None, repr=False, description="The secret with which other machines may ask for /metrics"
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, description="How long a server that is stopped lets requests go on that are under way"
    )
    log: Literal["text", "json"] = Field(default="text", description="Whether log lines are text or JSON objects")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="How much the web server logs"
    )

    @property
    def team(self) -> bool:
        return self.mode == "team"

    @property
    def query_limit(self) -> float:
        """Seconds; 0 is none."""
        return self.query_seconds if self.query_seconds is not None else 60.0 if self.team else 0.0

    @property
    def infer_urls(self) -> list[str]:
        return [url.strip().rstrip("/") for url in self.infer_url.split(",") if url.strip()]

    @property
    def infer_folder_list(self) -> list[Path]:
        return [Path(folder.strip()).expanduser() for folder in self.infer_folders.split(",") if folder.strip()]

    @field_validator("infer_url")
    @classmethod
    def _addresses(cls, given: str) -> str:
        for url in filter(None, map(str.strip, given.split(","))):
            if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
                raise ValueError("an inference service is http://HOST:PORT")
        return given


def load_settings(**overrides: object) -> Settings:
    """Read the environment; values that are not None in ``overrides`` win.

    Raises:
        InvalidSetting: a value that does not fit, named with what was wanted.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise InvalidSetting(
            f"SAESCOPE_{name.upper()} is {first['input']!r}, which does not fit: {first['msg'].lower()}.",
            setting=name,
        ) from None
    try:
        settings.home = settings.home.expanduser().absolute()
        if settings.embeddings:
            settings.embeddings = settings.embeddings.expanduser().absolute()
    except RuntimeError:
        raise InvalidSetting(f"The home {settings.home} names a user there is not.", setting="home") from None
    return settings
