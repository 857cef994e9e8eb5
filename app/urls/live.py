"""Addresses of what the model is asked live."""

from app.urls.parts import path_of, query_of


def inspect(kept: str | None = None, **state: object) -> str:
    """The prompt inspector, or a run of it that was kept; ``state`` is sae (one or several), text, token, sort and
    what else its page's URL says."""
    return path_of("/inspect", kept) + query_of(**state)


def inspect_json(kept: str | None = None, **state: object) -> str:
    return path_of("/inspect", kept) + ".json" + query_of(**state)


def keep_inspection() -> str:
    """Keeps a run, by POST, and leads to it."""
    return "/inspect/keep"


def compare_prompts(**state: object) -> str:
    """Two prompts side by side, and, by POST, where to find them."""
    return "/inspect/compare" + query_of(**state)


def compare_prompts_json(**state: object) -> str:
    return "/inspect/compare.json" + query_of(**state)


def keep_compared() -> str:
    """Keeps both prompts' runs, by POST, and leads to the comparison of them."""
    return "/inspect/compare/keep"


def contrast(**state: object) -> str:
    """Features that fire on the texts of one side and not on those of another."""
    return "/inspect/contrast" + query_of(**state)


def contrast_json(**state: object) -> str:
    return "/inspect/contrast.json" + query_of(**state)


def heads(**state: object) -> str:
    """A latent on attention outputs at one token, by head and source."""
    return "/inspect/heads" + query_of(**state)


def heads_json(**state: object) -> str:
    return "/inspect/heads.json" + query_of(**state)


def contexts(**state: object) -> str:
    """The corpus's contexts most like a text; ``state`` is text (or run), sae, token, to, chat, top and after."""
    return "/contexts" + query_of(**state)


def contexts_json(**state: object) -> str:
    return "/contexts.json" + query_of(**state)


def api_contexts() -> str:
    return "/api/inspect/contexts"


def intervene_effect(**state: object) -> str:
    """What edits change in a text itself: the part of /intervene that is fetched when a stream has ended."""
    return "/intervene/effect" + query_of(**state)


def intervene(**state: object) -> str:
    """A text without and with latents edited; ``feature``, ``kind`` and ``strength`` are lists of one length."""
    return "/intervene" + query_of(**state)


def intervene_json(**state: object) -> str:
    return "/intervene.json" + query_of(**state)


def attribute(**state: object) -> str:
    """Which latents a prediction hangs on."""
    return "/attribute" + query_of(**state)


def attribute_json(**state: object) -> str:
    return "/attribute.json" + query_of(**state)


def api_generate() -> str:
    return "/api/generate"


def api_inspect() -> str:
    return "/api/inspect"
