"""A saescope server's features for assistants, over the Model Context Protocol. Answers are a few kB of text."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx2
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

MOST = 6000  # characters of an answer
EXAMPLES, AROUND, TOKENS = 6, 15, 8
INSTRUCTIONS = (
    "Looks up features (latents) of sparse autoencoders on a saescope server: what they fire on and what they promote. "
    "Name a feature by its SAE's slug and its number. Labels are guesses, with their source beside them; the examples "
    "are what a feature really fires on, with the tokens it fires on in «guillemets»."
)


class Scope:
    """The server, and what is said of what it answers. Methods raise ToolError with the server's own sentence."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 120.0) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout, trust_env=False)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.request(method, path, **options)
            told = answer.json()
        except httpx2.TransportError as error:
            raise ToolError(f"The saescope server at {self._http.base_url} does not answer: {error}.") from None
        except ValueError:
            raise ToolError(f"{self._http.base_url} is no saescope server: it answers without JSON.") from None
        if not answer.is_success:
            raise ToolError(told.get("message", f"The server answered with status {answer.status_code}."))
        return told

    def list_saes(self) -> str:
        """Every SAE on the server: slug, subject model, place in it, size."""
        found = self._ask("GET", "/saes.json")["items"]
        lines = [f"{s['slug']}: {s['n_latents']:,} features at {s['hook']} of {s['subject']}" for s in found]
        return _cut(lines) if lines else "There is no SAE on this server."

    def search_features(self, words: str, sae: str = "", most: int = 10) -> str:
        """Features by what they mean, best first. words: what to look for, in plain words; sae: only in this SAE."""
        query = {"q": words, "top": max(1, min(most, 50))} | ({"sae": sae} if sae else {})
        told = self._ask("GET", "/search.json", params=query)
        if told["result"] is None:
            raise ToolError(told["error"] or "Nothing can be searched for in that.")
        lines = [
            f"{one['sae']}/{one['index']}: {one['label']} (from {one['label_source']}, density {one['density']:.2%})"
            for one in told["result"]["items"][:most]
        ]
        return _cut([*lines, *told["result"]["notes"]]) if lines else "No feature fits."

    def get_feature(self, sae: str, index: int) -> str:
        """One feature: label, explanations, what it promotes, and contexts with the tokens it fires on marked."""
        page = self._ask("GET", f"/saes/{quote(sae, safe='@')}/features/{int(index)}.json")
        score = "not scored" if page["label_score"] is None else f"score {page['label_score']:.2f}"
        top = [one for one in page["examples"] if one["interval"] == "top"][:EXAMPLES]
        explained = [f"Explanation ({one['method']}): {one['text'][:300]}" for one in page["explanations"][:3]]
        return _cut([
            f"{page['sae']}@{page['revision']} feature {page['index']}: {page['label']} (from {page['label_source']}, "
            f"{score})",
            f"Fires on {page['density']:.3%} of {page['counted']:,} tokens, at most {page['max']:.3g}.",
            *explained,
            f"Raises the logits of {_tokens(page['promoted'])}; lowers {_tokens(page['suppressed'])}.",
            *(["Strongest contexts:"] if top else ["It has no context in which it fires."]),
            *(f"- ({one['activation']:.3g}) {_marked(one)}" for one in top),
        ])  # fmt: skip

    def inspect_prompt(self, text: str, sae: str = "", most: int = 12) -> str:
        """Which features fire most on a text, and on which token. sae: with this SAE; else the server's first."""
        body = {"text": text, "top": max(1, min(most, 50))} | ({"sae": sae} if sae else {})
        told = self._ask("POST", "/api/inspect", json=body)
        lines = []
        for read in told["saes"]:
            lines.append(f"{read['address']}, of {read['active']:,} active features the strongest:")
            lines += [
                f"- {one['index']} {one['label']}: {one['activation']:.3g} at {told['tokens'][one['position']]!r}, "
                f"{one['share']:.0%} of its maximum"
                for one in read["latents"]
            ]
        return _cut(lines)

    def read_list(self, name: str) -> str:
        """The features of a list that somebody made on the server, with comments. name: the end of its address."""
        told = self._ask("GET", f"/lists/{quote(name, safe='')}.json")
        lines = [f"{told['title']} ({told['count']} items). {told['description']}"]
        for one in told["items"]:
            named = f"{one['feature']['sae']}/{one['feature']['index']}" if one["feature"] else one["reference"]
            comment = f" - {one['comment'][:300]}" if one["comment"] else ""
            lines.append(f"- {named}: {one['label']}{comment}")
        return _cut(lines)


def _cut(lines: list[str]) -> str:
    text = "\n".join(lines)
    return text if len(text) <= MOST else text[:MOST] + "\n(cut; ask for less)"


def _tokens(given: list[dict[str, Any]]) -> str:
    return ", ".join(repr(one["token"]) for one in given[:TOKENS]) or "nothing known"


def _marked(example: dict[str, Any]) -> str:
    """The context around its peak, on one line; tokens that fire stand in guillemets."""
    first = max(0, example["position"] - AROUND)
    pairs = list(zip(example["tokens"], example["activations"], strict=True))[first : example["position"] + AROUND + 1]
    return "".join(f"«{token}»" if value else token for token, value in pairs).replace("\n", "⏎")


def serve(url: str, token: str | None = None) -> None:
    """Answer on stdin and stdout until they close."""
    server, scope = MCPServer("saescope", instructions=INSTRUCTIONS, log_level="WARNING"), Scope(url, token)
    tools: tuple[Callable[..., str], ...] = (
        scope.list_saes, scope.search_features, scope.get_feature, scope.inspect_prompt, scope.read_list,
    )  # fmt: skip
    for tool in tools:
        server.tool(structured_output=False)(tool)
    server.run("stdio")
