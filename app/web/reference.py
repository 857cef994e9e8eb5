"""The API's reference: what the OpenAPI schema says beyond its routes, and the page made of it, so that no script from
elsewhere is needed to show it."""

import json
import re
import shlex
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.web.reference_contexts import ApiExample, ApiField, ApiModel, ApiOperation, ApiPage, ApiPart, ApiRefusal

ABOUT = (
    "Every page has a JSON twin: put `.json` after its path; the home page's is `/index.json`. Lists are "
    '`{"items", "next"}`; `cursor` asks for what follows. A refusal is `{"code", "message", "detail"}`, with '
    "`Retry-After` where it passes by itself."
)
TAGS = [
    {"name": "explanations", "description": "What features fire on in words, and what its scores were made on."},
    {"name": "live", "description": "The subject run on a text: inspect, intervene, attribute."},
    {"name": "features", "description": "SAEs and their features, as they were harvested."},
    {"name": "lists", "description": "Lists of features, kept prompt runs and regions of maps."},
    {
        "name": "graphs",
        "description": "Attribution graphs of other tools, and features as circuit-tracer asks for them.",
    },
    {"name": "harvests", "description": "Harvests: start, watch, stop."},
    {"name": "accounts", "description": "Accounts, share links and the audit log of an instance in team mode."},
    {"name": "training", "description": "Training runs, with their logs."},
    {"name": "site", "description": "What is here, and whether it is up."},
]


def summarise(app: FastAPI) -> None:
    """A route without a summary gets the beginning of its description."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.summary is None and route.description:
            route.summary = re.split(r"[.:;](?:\s|$)", _plain(route.description), maxsplit=1)[0]
            route.description = route.description.replace("``", "`")


def api_page(schema: dict[str, Any], base: str) -> ApiPage:
    """Every operation, by kind, with its parameters, body, answer, refusals and examples that are sent to ``base``."""
    parts = {tag["name"]: ApiPart(name=tag["name"], text=tag["description"], operations=[]) for tag in TAGS}
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            operation = _operation(method.upper(), path, told, schema, base)
            part = parts.setdefault(operation.tag, ApiPart(name=operation.tag, text="", operations=[]))
            part.operations.append(operation)
    models = [
        ApiModel(name=name, text=_plain(model.get("description", "")), fields=_fields({"$ref": f"/{name}"}, schema))
        for name, model in schema["components"]["schemas"].items()
        if "properties" in model and name not in ("HTTPValidationError", "ValidationError")
    ]
    info = schema["info"]
    return ApiPage(
        version=info["version"],
        text=_plain(info["description"]),
        parts=[part for part in parts.values() if part.operations],
        models=models,
    )


def _operation(method: str, path: str, told: dict[str, Any], whole: dict[str, Any], base: str) -> ApiOperation:
    content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
    body = content.get("schema", {})
    answer = told["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return ApiOperation(
        method=method,
        path=path,
        anchor=told["operationId"],
        tag=told.get("tags", ["other"])[0],
        summary=told.get("summary", ""),
        text=_plain(told.get("description", "")),
        parameters=[_parameter(p) for p in told.get("parameters", [])],
        body=_fields(body, whole),
        body_text=_plain(_model(body, whole).get("description", "")),
        answer=_fields(answer, whole),
        answer_type=_kind(answer),
        examples=_examples(path, told.get("parameters", []), content.get("examples", {}), base),
        refusals=[
            ApiRefusal(status=int(status), codes=_plain(response["description"]))
            for status, response in told["responses"].items()
            if status.startswith(("4", "5"))
        ],
    )


def _examples(path: str, parameters: list[dict[str, Any]], bodies: dict[str, Any], base: str) -> list[ApiExample]:
    """curl commands: one for each body, or one of the parameters that have examples."""
    if bodies:
        return [
            ApiExample(
                text=one["summary"],
                command=f"curl{' -N' if one['value'].get('stream') else ''} {base}{path} "
                f"-H 'content-type: application/json' -d {shlex.quote(json.dumps(one['value']))}",
            )
            for one in bodies.values()
        ]
    given = example_query(parameters)
    if not given:
        return []
    options = " ".join(f"--data-urlencode {shlex.quote(f'{name}={value}')}" for name, value in given)
    return [ApiExample(text="", command=f"curl -G {base}{path} {options}")]


def example_query(parameters: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Names and values of the query parameters that have an example, those of a list one by one."""
    given = [(p["name"], p["schema"]["examples"][0]) for p in parameters if p["schema"].get("examples")]
    return [(name, one) for name, value in given for one in (value if isinstance(value, list) else [value])]


def _plain(text: str) -> str:
    return text.replace("`", "")


def _parameter(told: dict[str, Any]) -> ApiField:
    return _field(told["name"], told["schema"], required=told.get("required", False))


def _field(name: str, schema: dict[str, Any], *, required: bool) -> ApiField:
    text = _plain(schema.get("description", ""))
    default = schema.get("default")
    if default not in (None, "", [], False):
        text = f"{text} {default} if left out.".strip()
    return ApiField(name=name, type=_kind(schema), required=required, text=text)


def _model(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return {}
    model: dict[str, Any] = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return model


def _fields(schema: dict[str, Any], whole: dict[str, Any]) -> list[ApiField]:
    model = _model(schema, whole)
    required = set(model.get("required", []))
    return [_field(name, field, required=name in required) for name, field in model.get("properties", {}).items()]


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words: ``list of Example``, ``number or null``, ``index | density | max``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(_kind(item) for item in schema['prefixItems'])}]"
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
