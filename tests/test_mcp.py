"""The MCP server, asked over stdio by the package's own client, against a real saescope server."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from app.main import create_app
from app.mcp_server import MOST
from tests.conftest import SLUG
from tests.serving import serving


def asked(url, *calls):
    """The names of the tools, and (text, whether it is an error) of every call."""

    async def ask():
        environment = {"PYTHONPATH": str(Path.cwd()), "PATH": os.environ["PATH"]}
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "app.cli", "mcp", "--url", url], env=environment
        )
        async with stdio_client(command) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            tools = await session.list_tools()
            answers = [await session.call_tool(name, given) for name, given in calls]
        return [tool.name for tool in tools.tools], [(one.content[0].text, bool(one.is_error)) for one in answers]

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def site(harvested, settings):
    with serving(create_app(settings.model_copy(update={"allowed_hosts": ""}))) as url:
        yield url


def test_an_assistant_looks_features_up(site, client):
    made = client.post("/api/lists", json={"title": "Cats", "items": [
        {"kind": "feature", "sae": SLUG, "index": 3, "comment": "The third."}]}).json()  # fmt: skip
    table = client.get(f"/saes/{SLUG}/features.json", params={"sort": "density", "order": "desc"}).json()
    index = table["items"][0]["index"]
    page = client.get(f"/saes/{SLUG}/features/{index}.json").json()
    names, answers = asked(
        site,
        ("list_saes", {}),
        ("get_feature", {"sae": SLUG, "index": index}),
        ("search_features", {"words": page["label"], "sae": SLUG}),
        ("inspect_prompt", {"text": "A cat sat in Paris", "sae": SLUG, "most": 3}),
        ("read_list", {"name": made["name"]}),
        ("get_feature", {"sae": SLUG, "index": 40}),
        ("get_feature", {"sae": "nowhere", "index": 0}),
    )
    assert names == ["list_saes", "search_features", "get_feature", "inspect_prompt", "read_list"]
    assert not any(wrong for _, wrong in answers[:5])
    saes, feature, hits, prompt, listed, beyond, nowhere = (text for text, _ in answers)
    assert f"{SLUG}: 40 features at model.layers.0:out of tiny" in saes
    assert f"feature {index}: {page['label']} (from {page['label_source']}" in feature
    best = next(one for one in page["examples"] if one["interval"] == "top")
    assert f"«{best['tokens'][best['position']]}»".replace("\n", "⏎") in feature
    assert hits
    assert prompt.count("\n- ") == 3
    assert f"- {SLUG}/3" in listed
    assert "The third." in listed
    assert [wrong for _, wrong in answers[5:]] == [True, True]
    assert "its features are 0 to 39" in beyond
    assert "There is no SAE 'nowhere' here" in nowhere
    assert all(len(text) <= MOST + 100 for text, _ in answers)


def test_without_a_server_it_says_so():
    _, answers = asked("http://127.0.0.1:1", ("list_saes", {}))
    assert answers[0][1]
    assert "does not answer" in answers[0][0]
