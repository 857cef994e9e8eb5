"""The image, the services and docs/deploy.md, against the code: commands, options, ports, settings, files. Nothing here
builds an image."""

import json
import re
import shlex
import tomllib

import click
import pytest
import typer
import yaml

from app import cli
from app.settings import Settings
from app.web.rendering import ROOT

COMMANDS = typer.main.get_command(cli.app)
SETTINGS = {f"SAESCOPE_{name.upper()}" for name in Settings.model_fields}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions():
    """The Dockerfile's (word, rest), continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def parsed(arguments):
    """The command that click makes of ``saescope ARGUMENTS``, and its parameters; nothing is run."""
    name, *rest = arguments
    command = COMMANDS.commands[name]
    return command.make_context(name, list(rest), resilient_parsing=False).params


def defaulted(text):
    """``${NAME:-x}`` as x, ``${NAME:?...}`` as a password."""
    return re.sub(r"\$\{\w+:\?[^}]*\}", "pw", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text)))


def test_the_dockerfile_copies_what_there_is_and_ends_as_a_user_without_rights():
    found = instructions()
    words = [word for word, _ in found]
    assert words.count("FROM") == 2
    for word, rest in found:
        if word == "COPY" and not rest.startswith("--from"):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
        if word == "ENV":
            given = dict(pair.split("=", 1) for pair in shlex.split(rest))
            assert {name for name in given if name.startswith("SAESCOPE_")} <= SETTINGS
            environment = given
        if word == "RUN":
            for name in re.findall(r"bin/saescope (\w+)", rest):
                assert name in COMMANDS.commands
            for extra in re.findall(r'"\.\[(\w+)\]"', rest):
                assert extra in PROJECT["optional-dependencies"]
    last = dict(found)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "USER" not in words[words.index("USER") + 1 :]
    assert json.loads(last["ENTRYPOINT"]) == list(PROJECT["scripts"])
    assert parsed(json.loads(last["CMD"])) is not None
    assert last["EXPOSE"] == environment["SAESCOPE_PORT"]
    assert f":{environment['SAESCOPE_PORT']}/readyz" in last["HEALTHCHECK"]
    assert environment["SAESCOPE_HOME"] == last["VOLUME"]
    values = {name.removeprefix("SAESCOPE_").lower(): v for name, v in environment.items() if name in SETTINGS}
    assert Settings(**values).log == "json"


def test_the_health_checks_command_is_python_that_compiles(services):
    checks = [json.loads(dict(instructions())["HEALTHCHECK"].split("CMD ", 1)[1])]
    checks += [services[name]["healthcheck"]["test"][1:] for name in ("web", "engine")]
    for program, flag, code in checks:
        assert (program, flag) == ("python", "-c")
        compile(code, "healthcheck", "exec")


def test_nothing_names_a_package_host():
    for name in ("Dockerfile", "docker-compose.yml", ".dockerignore"):
        found = re.findall(r"https?://([^/'\s:]+)", (ROOT / name).read_text())
        assert set(found) <= {"127.0.0.1", "engine"}, name
        assert "index-url" not in (ROOT / name).read_text()


def test_what_the_image_leaves_out_is_not_needed_to_run():
    left = set((ROOT / ".dockerignore").read_text().split())
    assert not left & {"app", "templates", "static", "migrations", "pyproject.toml", "package-lock.json", "README.md"}
    assert {".git", ".venv*", "static/vendor"} <= left


@pytest.mark.parametrize("name", ["web", "engine"])
def test_a_service_runs_a_command_there_is_with_settings_there_are_and_no_rights(services, name):
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "/tmp" in service["tmpfs"]
    assert "user" not in service  # the image's own
    parameters = parsed(service["command"])
    port = parameters.get("port") or 8000
    assert f"127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]
    given = {key: defaulted(value) for key, value in service["environment"].items()}
    assert set(given) <= SETTINGS
    settings = Settings(**{key.removeprefix("SAESCOPE_").lower(): value for key, value in given.items() if value})
    assert settings.database_url == "postgresql://saescope:pw@db:5432/saescope"
    assert settings.drain_seconds + 5 + 30 <= int(service["stop_grace_period"].removesuffix("s"))


def test_the_services_reach_each_other(services):
    assert set(services) == {"db", "web", "engine"}
    assert services["db"]["image"].startswith("pgvector/pgvector:pg")
    assert services["web"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["web"]["ports"] == ["127.0.0.1:8000:8000"]
    assert "ports" not in services["db"]
    assert "ports" not in services["engine"]
    assert services["engine"]["profiles"] == ["gpu"]
    (device,) = services["engine"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services["engine"]["volumes"][0] == services["web"]["volumes"][0]
    engine = services["engine"]["command"]
    told = f"SAESCOPE_INFER_URL=http://engine:{engine[engine.index('--port') + 1]}"
    assert told in (ROOT / "docs" / "deploy.md").read_text()
    # A service beyond loopback refuses to start without its secret, so the token is handed on to both.
    for name in ("web", "engine"):
        assert "SAESCOPE_INFER_TOKEN" in services[name]["environment"]


def test_every_command_and_setting_in_the_docs_is_one(services):
    text = (ROOT / "docs" / "deploy.md").read_text()
    compose = set(re.findall(r"\$\{(\w+):", (ROOT / "docker-compose.yml").read_text()))
    assert set(re.findall(r"SAESCOPE_[A-Z_]+", text)) <= SETTINGS
    assert set(re.findall(r"^(\w+)=\$\(", text, flags=re.MULTILINE)) <= compose
    ran = 0
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        if kind not in ("sh", "ini", ""):
            continue
        for found in re.findall(r"(?:bin/|web |&& |^|engine )saescope ([^&'\n]+)|engine (harvest [^\n]+)", block, re.M):
            arguments = shlex.split(found[0] or found[1])
            try:
                parsed(arguments)
            except click.ClickException as error:
                raise AssertionError((arguments, error.format_message())) from None
            ran += 1
    assert ran >= 12
    for page in re.findall(r"\]\((\w+\.md)", text):
        assert (ROOT / "docs" / page).is_file()
