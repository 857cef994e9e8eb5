"""Devices, the home's disk, the browser's libraries, the port, and inference services."""

import json
import os
import shutil
from collections.abc import Iterator

import httpx2

from app.cli_server import check_port
from app.doctor.finding import Finding, fault, fine, note
from app.errors import PortInUse
from app.settings import Settings
from app.store.embedded import NEEDED_BYTES, closed_parent
from app.web.assets import assets_ready

ROOMY = 5 << 30


def device(settings: Settings) -> Finding:
    from app.subject.load import choose_device, choose_dtype

    import torch  # isort: skip

    if settings.device == "cuda" and not torch.cuda.is_available():
        return fault(
            "device", "SAESCOPE_DEVICE is cuda, and torch finds no GPU.",
            "Set it to auto, or install a build of torch and a driver that fit the GPU.",
        )  # fmt: skip
    chosen = choose_device(settings.device)
    name = f"{os.cpu_count()} cores"
    if chosen.type == "cuda":
        gb = torch.cuda.get_device_properties(chosen).total_memory / 1e9
        name = f"{torch.cuda.get_device_name(chosen)}, {gb:.0f} GB"
    dtype = str(choose_dtype(settings.dtype, chosen)).removeprefix("torch.")
    return fine("device", f"{chosen.type} ({name}), subjects in {dtype}, torch {torch.__version__}")


def disk(settings: Settings) -> Finding:
    home = settings.home
    there = next(path for path in (home, *home.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return fault("home", f"{there} cannot be written.", "Change its owner, or choose another folder with --home.")
    free = shutil.disk_usage(there).free
    told = f"{home}, {free / 2**30:.1f} GiB free"
    if free < NEEDED_BYTES:
        return fault(
            "home", f"{told}; the database needs {NEEDED_BYTES // 2**20} MiB.", "Free some space or move the home."
        )
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0 and settings.database_url is None
    if as_root and (closed := closed_parent(home / "postgres")):
        return fault(
            "home", f"As root the database runs as another user, who cannot enter {closed}.",
            "Choose another --home, such as /var/lib/saescope.",
        )  # fmt: skip
    if free < ROOMY:
        return note("home", f"{told}.", "A harvest of 16,000 latents takes about 0.2 GB; see that it does not fill up.")
    return fine("home", told if home.exists() else f"{told}; the first command makes it")


def assets() -> Finding:
    if assets_ready():
        return fine("assets", "the browser's libraries are here")
    return fault(
        "assets", "The browser's libraries are missing or older than package-lock.json: no charts, no live pages.",
        "Run saescope assets, which fetches them.",
    )  # fmt: skip


def port(settings: Settings) -> Finding:
    """One that a saescope has is fine: it is being examined while it runs."""
    try:
        check_port(settings)
    except PortInUse as error:
        told = _asked(f"http://{settings.host}:{settings.port}/healthz")
        if told == {"status": "ok"}:
            return fine("port", f"a saescope answers at {settings.host}:{settings.port}")
        return fault("port", error.message, "Stop what listens there, or choose another with --port or SAESCOPE_PORT.")
    return fine("port", f"{settings.host}:{settings.port} is free")


def services(settings: Settings) -> Iterator[Finding]:
    for number, url in enumerate(settings.infer_urls, 1):
        what = f"inference service {number}"
        told = _asked(f"{url}/readyz")
        if isinstance(told, dict) and told.get("status") == "ready":
            yield fine(what, f"{url} is ready, {told.get('pending')} waiting")
        else:
            yield fault(
                what, f"{url} does not answer as an inference service does.",
                "Start saescope infer there, or correct SAESCOPE_INFER_URL; pages that need no model work without.",
            )  # fmt: skip


def _asked(url: str) -> object:
    try:
        answer = httpx2.get(url, timeout=3, trust_env=False)
        return json.loads(answer.content)
    except (httpx2.HTTPError, ValueError):
        return None
