"""Requests to show in the API's schema; a test sends every one of them."""

from typing import Any

DEMO = "smollm2-135m-l9-topk-4096"
EIFFEL = "The Eiffel Tower stands in the city of"
CITY = "My favourite city is"
PLACES = f"{DEMO}/830"  # fires on Paris, Berlin and other places


def _named(**bodies: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: {"summary": summary, "value": body} for name, (summary, body) in bodies.items()}


INSPECT = _named(
    short=("The strongest features of a text", {"text": f"{EIFFEL} Paris", "sae": DEMO, "top": 5}),
    kept=(
        "At one token, with what the subject expects next and a pinned feature; kept under a link",
        {
            "text": f"{EIFFEL} Paris", "sae": [DEMO], "token": 10, "sort": "activation", "predict": True,
            "pin": [PLACES], "keep": True,
        },
    ),
)  # fmt: skip
GENERATE = _named(
    whole=(
        "A feature is added to everywhere",
        {"text": CITY, "edits": [{"feature": PLACES, "kind": "add", "strength": 1}], "max_new": 20, "seed": 1},
    ),
    streamed=(
        "Token by token, with a feature silenced and another held at half its maximum",
        {
            "text": CITY,
            "edits": [
                {"feature": PLACES, "kind": "ablate"},
                {"feature": f"{DEMO}/2934", "kind": "clamp", "strength": 0.5, "positions": "generated"},
            ],
            "max_new": 20, "temperature": 0, "stream": True,
        },
    ),
)  # fmt: skip
EFFECT = _named(
    added=(
        "What adding a feature does to the next token",
        {"text": CITY, "edits": [{"feature": PLACES, "kind": "add", "strength": 1}], "top": 5},
    ),
)
ATTRIBUTE = _named(
    likeliest=("Why the likeliest next token", {"text": EIFFEL, "sae": DEMO}),
    pair=(
        "Why one token rather than another",
        {"text": EIFFEL, "sae": DEMO, "token": "Paris", "against": "London", "top": 10},
    ),
)
COMPARE = _named(
    two=(
        "What differs between two texts, each aligned with the other",
        {"text": f"{EIFFEL} Paris", "other": "The Colosseum stands in the city of Rome", "sae": DEMO, "top": 5},
    ),
    place=(
        "At one place of the alignment, features that fire on more than 1% of tokens left out",
        {"text": "Paris is warm", "other": "Paris is cold", "sae": DEMO, "at": 3, "densest": 0.01},
    ),
)
CONTRAST = _named(
    every=(
        "What fires on both of these, and not on the third",
        {"here": ["Paris is in France", "Rome is in Italy"], "there": ["A cat sleeps in the sun"], "sae": DEMO},
    ),
)
CONTEXTS = _named(
    token=(
        "Where in the corpus the same features fire as on this text's last token",
        {"text": "The treaty was signed in Paris", "sae": DEMO, "token": 6, "top": 5},
    ),
)
HEADS = _named(
    strongest=(
        "Where a feature of an SAE on attention outputs fires most: which heads, and which tokens they look at",
        {"text": f"{EIFFEL} Paris", "feature": "an-sae-on-attention-outputs/3"},
    ),
)
HARVEST = _named(
    again=(
        "The demo's SAE once more, over other text",
        {"sae": DEMO, "corpus": "pkg:brown", "tokens": 100_000},
    ),
)
EXPLANATION = _named(
    new=("What a person says it fires on", {"text": "words of doubt, such as perhaps and maybe", "author": "Ada"}),
)
EXPLANATION_EDIT = _named(
    other=("Another text; the one before is kept", {"text": "words of doubt: perhaps, maybe, likely", "author": "Ada"}),
)
VOTE = _named(for_it=("A vote for it; -1 is against it, 0 takes it back", {"author": "Grace", "value": 1}))
JOB = _named(
    explain=("Explanations without a language model, and their scores", {"job": "explain", "sae": DEMO}),
    map=("A map of what fires together", {"job": "map", "sae": DEMO, "on": "coactivation"}),
    embed=("What search by meaning needs, for every SAE", {"job": "embed"}),
)
LIST = _named(
    features=(
        "Two features, with what one is about",
        {
            "title": "Places", "description": "Features that fire on names of places.", "tags": ["geography"],
            "items": [
                {"kind": "feature", "sae": DEMO, "index": 830, "comment": "Cities more than countries."},
                {"kind": "feature", "sae": DEMO, "index": 2934},
            ],
        },
    ),
)  # fmt: skip
LIST_EDIT = _named(title=("Another title and other tags", {"title": "Places, reviewed", "tags": ["geography", "done"]}))
ITEMS = _named(
    feature=("One feature more", {"items": [{"kind": "feature", "sae": DEMO, "index": 12, "tags": ["check"]}]}),
)
ITEM_EDIT = _named(comment=("A comment, and up one place", {"comment": "Fires on Berlin, too.", "move": "up"}))
NOTE = _named(note=("A note", {"text": "Fires on capitals.\n\nCompare /saes/" + DEMO + "/features/2934."}))

GRAPH = _named(
    small=(
        "A graph of three nodes",
        {
            "metadata": {"slug": "tower", "scan": "SmolLM2-135M-Instruct", "prompt": "The tower",
                         "prompt_tokens": ["The", " tower"]},
            "qParams": {"pinnedIds": ["9_830_1"], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
            "nodes": [
                {"node_id": "E_504_0", "feature": 0, "layer": "E", "ctx_idx": 0, "feature_type": "embedding"},
                {"node_id": "9_830_1", "feature": 353210, "layer": "9", "ctx_idx": 1, "influence": 0.4,
                 "activation": 3.5, "feature_type": "cross layer transcoder", "clerp": "places"},
                {"node_id": "31_7042_1", "feature": 7042, "layer": "31", "ctx_idx": 1, "feature_type": "logit",
                 "token_prob": 0.2, "clerp": "Output \" Paris\" (p=0.200)"},
            ],
            "links": [
                {"source": "E_504_0", "target": "9_830_1", "weight": 0.7},
                {"source": "9_830_1", "target": "31_7042_1", "weight": 1.3},
            ],
        },
    ),
)  # fmt: skip
