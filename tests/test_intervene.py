"""Interventions and attributions over HTTP, against the subject run by hand."""

import json
import re
from html import unescape

import httpx2 as httpx
import pytest
import torch
from fastapi.testclient import TestClient

from app.main import create_app
from app.web.presets import PRESETS
from tests.conftest import SLUG, random_sae
from tests.serving import serving

TEXT = "Paris is the capital of France"


def logits_by_hand(tiny, change):
    """[positions, vocabulary] when ``change(x, sae)`` takes the place of what layer 0 puts out after BOS."""
    sae, ids = random_sae(), torch.tensor([[tiny.bos_id, *tiny.encode(TEXT)]])

    def hook(_module, _args, out):
        x = out[0] if isinstance(out, tuple) else out
        new = torch.cat([x[:, :1], change(x[0, 1:], sae)[None].to(x.dtype)], dim=1)
        return (new, *out[1:]) if isinstance(out, tuple) else new

    handle = tiny.model.model.layers[0].register_forward_hook(hook)
    with torch.inference_mode():
        logits = tiny.model(input_ids=ids).logits[0]
    handle.remove()
    return ids[0], logits


def latent_on(client):
    """A latent that fires on the text, and its maximum in the harvest."""
    shown = client.post("/api/inspect", json={"text": TEXT, "sae": SLUG}).json()["saes"][0]["latents"][0]
    return shown["index"], client.get(f"/saes/{SLUG}/features/{shown['index']}.json").json()["max"]


def asked(client, path, **body):
    answer = client.post(path, json={"text": TEXT, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("kind", ["ablate", "add", "clamp", "scale", "steer", "project"])
def test_an_effect_equals_a_hook_written_by_hand(client, tiny, kind):
    index, peak = latent_on(client)

    def change(x, sae):
        acts = sae.encode(x)
        before, dense = sae.decode(acts, x), acts.dense(40)
        row = sae.W_dec[index]
        if kind == "steer":
            return x + 2 * peak * row
        if kind == "project":
            return x - (x @ row)[:, None] * row
        new = {"ablate": 0 * dense[:, index], "add": dense[:, index] + 2 * peak,
               "clamp": torch.full((len(x),), 2 * peak), "scale": 2 * dense[:, index]}[kind]  # fmt: skip
        after = before + (new - dense[:, index])[:, None] * row
        return x + after - before

    _, clean = logits_by_hand(tiny, lambda x, _: x)
    ids, edited = logits_by_hand(tiny, change)
    p, q = edited.log_softmax(1), clean.log_softmax(1)
    edit = {"feature": f"{SLUG}/{index}", "kind": kind, "strength": 2}
    found = asked(client, "/api/effect", edits=[edit])
    assert found["kl"] == pytest.approx((p.exp() * (p - q)).sum(1).tolist(), rel=1e-3, abs=1e-6)
    assert max(found["kl"]) > 1e-7
    losses = [(-row[:-1].gather(1, ids[1:, None])[:, 0]) for row in (p, q)]
    assert found["loss_change"][1:] == pytest.approx((losses[0] - losses[1]).tolist(), abs=1e-4)
    assert found["loss_change"][0] is None
    for shift in found["raised"]:
        assert shift["edited_logit"] == pytest.approx(float(edited[-1, shift["token_id"]]), abs=1e-4)
        assert shift["clean_logit"] == pytest.approx(float(clean[-1, shift["token_id"]]), abs=1e-4)
    scaled = 2 * peak if kind in ("add", "clamp", "steer") else 2
    units = {"feature": f"{SLUG}/{index}", "kind": kind, "unit": "activation", "strength": scaled}
    assert asked(client, "/api/effect", edits=[units])["kl"] == pytest.approx(found["kl"], rel=1e-4, abs=1e-7)


def events(text):
    return [
        (part.split("\n")[0].removeprefix("event: "), json.loads(part.split("\n")[1].removeprefix("data: ")))
        for part in text.strip().split("\n\n")
    ]


def test_a_text_goes_on_on_both_sides_streamed_or_whole(client, tiny):
    index, _ = latent_on(client)
    body = {"edits": [{"feature": f"{SLUG}/{index}", "kind": "add", "strength": 50}], "max_new": 12, "temperature": 0}
    whole = asked(client, "/api/generate", **body)
    answer = client.post("/api/generate", json={"text": TEXT, **body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer.text)
    assert [name for name, _ in told] == ["step"] * len(whole["steps"]) + ["done"]
    assert [data for name, data in told if name == "step"] == whole["steps"]
    ids = torch.tensor([[tiny.bos_id, *tiny.encode(TEXT)]])
    wanted = tiny.model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    assert [s["baseline"]["token_id"] for s in whole["steps"] if s["baseline"]] == wanted
    edited = [s["edited"]["token_id"] for s in whole["steps"] if s["edited"]]
    assert edited != wanted
    assert whole["baseline"] == "".join(s["baseline"]["text"] for s in whole["steps"] if s["baseline"])
    assert whole["mean_kl"] > 0
    same = asked(
        client, "/api/generate", **{**body, "edits": [{"feature": f"{SLUG}/{index}", "kind": "scale", "strength": 1}]}
    )
    assert same["baseline"] == same["edited"]
    assert same["mean_kl"] < 1e-6


def test_a_stream_that_is_left_ends_in_the_engine(client):
    index, _ = latent_on(client)
    engine = client.app.state.saescope.engine
    body = {"text": TEXT, "edits": [{"feature": f"{SLUG}/{index}"}], "max_new": 40, "temperature": 1, "stream": True}
    with client.stream("POST", "/api/generate", json=body) as answer:
        first = next(answer.iter_lines())
        assert first == "event: step"
    for _ in range(100):
        if engine.pending == 0:
            break
        client.get("/healthz")
    assert engine.pending == 0


def test_attributions_agree_with_ablation_and_gradients_of_ones_own(client, tiny):
    found = asked(client, "/api/attribute", sae=SLUG, top=5)
    ids, clean = logits_by_hand(tiny, lambda x, _: x)
    assert found["position"] == len(ids) - 1
    assert found["token_id"] == int(clean[-1].argmax())
    assert found["metric"] == pytest.approx(float(clean[-1].max()), abs=1e-4)
    for latent in found["latents"]:

        def without(x, sae, index=latent["index"]):
            dense = sae.encode(x).dense(40)
            return x - dense[:, index, None] * sae.W_dec[index]

        _, edited = logits_by_hand(tiny, without)
        lost = float(clean[-1, found["token_id"]] - edited[-1, found["token_id"]])
        assert latent["exact"] == pytest.approx(lost, abs=1e-4)
        assert latent["act_grad"] == pytest.approx(sum(part for _, _, part in latent["places"]), abs=1e-5)
    sizes = [abs(latent["act_grad"]) for latent in found["latents"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0
    pair = asked(client, "/api/attribute", sae=SLUG, token=" Paris", against=" cat")
    assert pair["metric"] == pytest.approx(
        float(clean[-1, tiny.encode(" Paris")[0]] - clean[-1, tiny.encode(" cat")[0]]), abs=1e-4
    )
    assert all(p.grad is None for p in tiny.model.parameters())


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/api/effect", {"edits": [{"feature": f"{SLUG}/40"}]}, 422, "0 to 39"),
        ("/api/effect", {"edits": [{"feature": "seven"}]}, 422, "SLUG/NUMBER"),
        ("/api/effect", {"edits": [{"feature": f"{SLUG}/7", "positions": [1 << 63]}]}, 422, "positions"),
        ("/api/effect", {"edits": [{"feature": f"{SLUG}/7", "knd": "ablate"}]}, 422, "no field 'edits.0.knd'"),
        ("/api/attribute", {"metric": "logprob"}, 422, "no field 'metric'"),
        ("/api/effect", {"edits": [{"feature": "nowhere/7"}]}, 404, "no SAE"),
        ("/api/effect", {"edits": [{"feature": f"{SLUG}/7", "kind": "burn"}]}, 422, "kind"),
        ("/api/effect", {"edits": [{"feature": f"{SLUG}/7", "strength": "NaN"}]}, 422, "strength"),
        ("/api/effect", {"edits": [{"feature": f"{SLUG}/7", "strength": 1e9}]}, 422, "strength"),
        ("/api/effect", {"edits": [{"feature": f"{SLUG}/7"}] * 100}, 422, "edits"),
        ("/api/effect", {"edits": [{"feature": f"{SLUG}/7"}], "position": 900}, 422, "Position 900"),
        ("/api/effect", {"text": " ", "edits": [{"feature": f"{SLUG}/7"}]}, 422, "no text"),
        ("/api/effect", {"text": "word " * 60, "edits": [{"feature": f"{SLUG}/7"}]}, 413, "limit is 47"),
        ("/api/generate", {"edits": [{"feature": f"{SLUG}/7"}], "max_new": 0}, 422, "max_new"),
        ("/api/generate", {"edits": [{"feature": f"{SLUG}/40"}], "stream": True}, 422, "0 to 39"),
        ("/api/generate", {"text": "word " * 60, "edits": [{"feature": f"{SLUG}/7"}], "stream": True}, 413, "limit is"),
        ("/api/attribute", {"position": 900}, 422, "no token 900"),
        ("/api/attribute", {"token": "two words here"}, 422, "not one token"),
        ("/api/attribute", {"token": 99_999_999}, 422, "no token 99999999"),
        ("/api/attribute", {"text": "\ud800"}, 422, "surrogate"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(client, path, body, status, says):
    content = json.dumps({"text": TEXT, **({"sae": SLUG} if "attribute" in path else {}), **body})
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert says in answer.json()["message"]
    assert client.app.state.saescope.engine.pending == 0


def test_a_number_alone_is_a_feature_of_the_only_sae(client):
    alone, named = (
        asked(client, "/api/effect", edits=[{"feature": name}]) for name in ("7", f"{SLUG}/7")
    )  # fmt: skip
    assert alone == named


def test_next_to_no_temperature_is_none(client):
    cold, none = (
        asked(client, "/api/generate", edits=[{"feature": "7"}], max_new=3, temperature=t) for t in (1e-320, 0)
    )  # fmt: skip
    assert [s["baseline"]["token_id"] for s in cold["steps"]] == [s["baseline"]["token_id"] for s in none["steps"]]


def test_pages_show_what_the_api_answers(client):
    index, peak = latent_on(client)
    query = {"text": TEXT, "feature": [f"{SLUG}/{index}", ""], "kind": ["clamp", "add"], "strength": ["3", "1"],
             "max_new": 5, "temperature": 0, "seed": 1}  # fmt: skip
    twin = client.get("/intervene.json", params=query).json()
    assert twin["edits"][0]["amount"] == pytest.approx(3 * peak)
    body = {"edits": [{"feature": f"{SLUG}/{index}", "kind": "clamp", "strength": 3}]}
    assert twin["effect"] == asked(client, "/api/effect", **body)
    assert twin["generated"] == asked(client, "/api/generate", **body, max_new=5, temperature=0, seed=1)
    html = client.get("/intervene", params=query).text
    assert html.count('name="feature"') == 2
    assert "With the edits" in html
    assert client.get("/intervene").status_code == 200
    assert client.get("/intervene", params=query | {"strength": ["x"]}).status_code == 422
    assert client.get("/intervene", params=query | {"kind": ["burn"]}).status_code == 422
    found = client.get("/attribute.json", params={"text": TEXT, "sae": SLUG}).json()["result"]
    assert found == asked(client, "/api/attribute", sae=SLUG)
    page = client.get("/attribute", params={"text": TEXT, "sae": SLUG}).text
    assert len(re.findall(r'<th scope="row"><a href="/saes/', page)) == len(found["latents"])


FORM = {
    "text": TEXT, "chat": "1", "feature": [f"{SLUG}/3", "", f"{SLUG}/4", ""], "kind": ["scale", "add", "steer", "add"],
    "strength": ["1.2345678", "1", "-0.25", "1"], "where": ["all", "all", "3, 5", "all"], "max_new": "4",
    "temperature": "0.35", "top_p": "0.85", "seed": "12345678901",
}  # fmt: skip


def fields_of(html):
    """What the form of the page would send."""
    form = re.search(r'<form id="intervene".*?</form>', html, re.S)[0]
    sent = {"text": unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", form, re.S)[1])}
    for tag in re.findall(r"<input[^>]*>", form):
        name, value = re.search(r'name="(\w+)"', tag)[1], unescape(re.search(r'value="([^"]*)"', tag)[1])
        if "checkbox" not in tag or " checked" in tag:
            sent.setdefault(name, []).append(value)
    kinds = re.findall(r'<select name="kind">.*?</select>', form, re.S)
    sent["kind"] = [(re.search(r"<option selected>(\w+)", one) or re.search(r"<option>(\w+)", one))[1] for one in kinds]
    return sent


def test_the_address_holds_all_of_an_intervention(client):
    url = client.post("/intervene", data=FORM, follow_redirects=False).headers["location"]
    twin = client.get(url.replace("/intervene?", "/intervene.json?")).json()
    assert [(e["feature"], e["kind"], e["strength"], e["where"]) for e in twin["edits"]] == [
        (f"{SLUG}/3", "scale", 1.2345678, "all"), (f"{SLUG}/4", "steer", -0.25, "3 5"),
    ]  # fmt: skip
    edits = [
        {"feature": f"{SLUG}/3", "kind": "scale", "strength": 1.2345678},
        {"feature": f"{SLUG}/4", "kind": "steer", "strength": -0.25, "positions": [3, 5]},
    ]
    body = {"edits": edits, "chat": True, "max_new": 4, "temperature": 0.35, "top_p": 0.85, "seed": 12345678901}
    assert twin["generated"] == asked(client, "/api/generate", **body)
    assert asked(client, "/api/generate", **body | {"top_p": 0.01}) != twin["generated"]
    again = client.post("/intervene", data=fields_of(client.get(url).text), follow_redirects=False)
    assert again.headers["location"] == url.replace("where=3%2C+5", "where=3+5")


def test_a_long_text_is_kept_and_its_address_names_it(client, monkeypatch):
    monkeypatch.setattr("app.web.intervene_page.LONGEST_URL", 40)
    url = client.post("/intervene", data=FORM, follow_redirects=False).headers["location"]
    run = re.search(r"run=(\w{10})", url)[1]
    assert "text=" not in url
    page = client.get(url).text
    assert TEXT in page
    again = client.post("/intervene", data=fields_of(page), follow_redirects=False).headers["location"]
    assert f"run={run}" in again  # sent again from its own page it is not kept twice
    changed = fields_of(page) | {"text": "Another one."}
    assert run not in client.post("/intervene", data=changed, follow_redirects=False).headers["location"]
    monkeypatch.undo()
    short = client.post("/intervene", data=FORM, follow_redirects=False).headers["location"]
    one, other = (client.get(u.replace("/intervene?", "/intervene.json?")).json() for u in (url, short))
    for name in ("text", "chat", "edits", "generated"):
        assert one[name] == other[name]
    assert client.get("/intervene", params={"run": "nothere"}).status_code == 404


def test_a_presets_button_fills_its_row_and_its_link_leads_there(client):
    for row, feature in ((0, f"{SLUG}/3"), (2, f"{SLUG}/4")):
        for one in PRESETS:
            data = FORM | {"preset": f"{row}:{one.name}", "text": ""}
            url = client.post("/intervene", data=data, follow_redirects=False).headers["location"]
            shown = client.get(url.replace("/intervene?", "/intervene.json?")).json()
            edit = next(e for e in shown["edits"] if e["feature"] == feature)
            assert (edit["kind"], edit["strength"]) == (one.kind, float(one.strength))
            assert shown["generated"] is None
    for unknown in ("0:burn", "9:ablate", "x:ablate", "ablate"):
        url = client.post("/intervene", data=FORM | {"preset": unknown}, follow_redirects=False).headers["location"]
        assert "strength=1.2345678" in url
    feature = client.get(f"/saes/{SLUG}/features/3").text
    links = [unescape(link) for link in re.findall(r'href="(/intervene\?[^"]*kind=[^"]*)"', feature)]
    assert len(links) == len(PRESETS)
    for link, one in zip(links, PRESETS, strict=True):
        edit = client.get(link.replace("/intervene?", "/intervene.json?")).json()["edits"][0]
        assert (edit["feature"], edit["kind"], edit["strength"]) == (f"{SLUG}/3", one.kind, float(one.strength))
    attributed = client.get("/attribute", params={"text": TEXT, "sae": SLUG, "chat": 1}).text
    link = unescape(re.search(r'href="(/intervene\?[^"]*kind=ablate[^"]*)"', attributed)[1])
    shown = client.get(link.replace("/intervene?", "/intervene.json?")).json()
    assert (shown["text"], shown["chat"], shown["edits"][0]["kind"]) == (TEXT, True, "ablate")


def test_places_that_are_none_are_told(client):
    query = {"text": TEXT, "feature": f"{SLUG}/3", "where": "here"}
    refused = client.get("/intervene.json", params=query)
    assert refused.status_code == 422
    assert "write all, generated, or places" in refused.json()["message"]
    assert (
        client.get("/intervene.json", params=query | {"where": "generated"}).json()["edits"][0]["where"] == "generated"
    )


def test_a_page_is_there_before_its_texts(harvested, settings):
    query = {"text": TEXT, "feature": f"{SLUG}/3", "max_new": 5, "seed": 1}
    with serving(create_app(settings)) as base:
        with httpx.stream("GET", f"{base}/intervene", params=query, timeout=300) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            first, *others = answer.iter_text()
        twin = httpx.get(f"{base}/intervene.json", params=query, timeout=300).json()
    whole = first + "".join(others)
    assert 'id="intervene"' in first
    assert "Going on" in first
    assert "With the edits" not in first
    assert "</html>" not in first
    assert twin["generated"]["edited"] in unescape(whole)
    assert whole.rstrip().endswith("</html>")
    assert "\0" not in whole


def test_a_page_whose_texts_are_refused_says_so_and_shows_the_rest(harvested, settings):
    own = settings.model_copy(update={"client_requests": 0, "client_tokens": 10})  # what the effect costs is more
    with TestClient(create_app(own)) as client:
        page = client.get("/intervene", params={"text": TEXT, "feature": f"{SLUG}/3"})
    assert page.status_code == 200
    assert re.search(r'class="error" role="alert">[^<]*10 tokens a minute', page.text)
    assert "With the edits" not in page.text
    assert "KL" in page.text
    assert page.text.rstrip().endswith("</html>")
