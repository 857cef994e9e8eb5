"""Attribution graphs: read, refused, laid out, linked to features; features as circuit-tracer asks for them."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import SaescopeError
from app.interop import graphs as g
from app.interop.graph_layout import STEP, laid_out
from app.web.api_examples import GRAPH
from tests.conftest import LAYERS, SLUG


def small(**changes):
    return json.loads(json.dumps(GRAPH["small"]["value"])) | changes


def of_tiny(scan="tiny"):
    """A graph whose feature's node is latent 3 of layer 0."""
    graph = small()
    graph["metadata"]["scan"] = scan
    graph["nodes"][1] |= {"node_id": "0_3_1", "feature": g.cantor(0, 3), "layer": "0", "clerp": "their <b>label</b>"}
    graph["links"] = [{"source": "E_504_0", "target": "0_3_1", "weight": 0.7},
                      {"source": "0_3_1", "target": "31_7042_1", "weight": -1.3}]  # fmt: skip
    return graph


def test_a_number_is_of_one_layer_and_latent():
    numbers = [g.cantor(layer, index) for layer in range(40) for index in range(40)]
    assert len(set(numbers)) == len(numbers)
    assert all(
        g.uncantor(g.cantor(layer, index)) == (layer, index) for layer in (0, 9, 31) for index in (0, 830, 10**6)
    )
    assert g.cantor(1, 2) == 8  # (1 + 2)(1 + 2 + 1) / 2 + 2


@pytest.mark.parametrize(
    ("changes", "index"),
    [
        ({}, 830), ({"feature": 830}, 830), ({"feature": None}, 830), ({"feature": 831}, None),
        ({"node_id": "x"}, 830), ({"node_id": "x", "feature": 830}, None), ({"node_id": "8_830_1"}, 830),
        ({"node_id": "8_830_1", "feature": 830}, None), ({"feature": -1}, 830), ({"feature": True}, 830),
    ],
)  # fmt: skip
def test_a_nodes_latent_is_taken_only_where_id_and_number_agree(changes, index):
    graph = small(links=[])
    graph["nodes"][1] |= changes
    assert g.of(graph).nodes[1].index == index


def test_links_of_a_node_are_by_weight_and_packing_changes_nothing():
    graph = small()
    graph["links"].append({"source": "E_504_0", "target": "31_7042_1", "weight": -2})
    read = g.of(graph)
    incoming, outgoing = read.beside(2)
    assert [(node.id, weight) for node, weight in incoming] == [("E_504_0", -2.0), ("9_830_1", 1.3)]
    assert outgoing == []
    assert g.unpacked(g.packed(read)) == read


def test_nodes_stand_by_layer_and_token_and_apart():
    graph = small(links=[])
    graph["nodes"] += [
        {"node_id": f"9_{i}_1", "layer": 9, "ctx_idx": 1, "feature_type": "cross layer transcoder"} for i in range(40)
    ]
    read = g.of(graph)
    layout = laid_out(read)
    assert len(set(layout.places)) == len(read.nodes)
    tops = {node.layer: y for node, (_, y) in zip(read.nodes, layout.places, strict=True)}
    assert tops[31] < tops[9] < tops[-1]
    xs = [x for node, (x, _) in zip(read.nodes, layout.places, strict=True) if node.position == 1]
    assert min(xs) > max(x for node, (x, _) in zip(read.nodes, layout.places, strict=True) if node.position == 0)
    assert max(x for x, _ in layout.places) + STEP / 2 <= layout.width
    assert max(y for _, y in layout.places) < layout.height


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x.pop("metadata"), "The graph's metadata is missing"),
        (lambda x: x["metadata"].update(prompt_tokens=[]), "0 prompt_tokens"),
        (lambda x: x["metadata"].update(prompt_tokens=[1]), "metadata's prompt_tokens 0 is '1'"),
        (lambda x: x.update(nodes=[]), "0 nodes"),
        (lambda x: x.update(nodes=[5]), "Node 0 is no object"),
        (lambda x: x["nodes"].append(x["nodes"][0]), "Node 3: the node_id 'E_504_0' stands there twice"),
        (lambda x: x["nodes"][1].update(layer="x"), "Node 1: layer is 'x'"),
        (lambda x: x["nodes"][1].update(layer=-1), "Node 1: layer is '-1'"),
        (lambda x: x["nodes"][1].update(ctx_idx=2), "Node 1: ctx_idx is '2'; a whole number from 0 to 1"),
        (lambda x: x["nodes"][1].pop("feature_type"), "Node 1: feature_type"),
        (lambda x: x["nodes"][1].update(influence="much"), "Node 1: influence is 'much'"),
        (lambda x: x["links"][0].update(source="no"), "Link 0: its source, 'no', is the node_id of no node"),
        (lambda x: x["links"][1].update(weight=None), "Link 1: its weight is missing"),
        (lambda x: x["links"][1].update(weight=float("nan")), "Link 1: weight is 'nan'"),
        (lambda x: x["links"].append([]), "Link 2 is no object"),
        (lambda x: x.update(links={}), "The graph's links is missing, or no list"),
        (lambda x: x.update(nodes=[dict(x["nodes"][0], node_id=str(i)) for i in range(g.MOST_NODES + 1)]),
         "The graph has 5,001 nodes"),
    ],
)  # fmt: skip
def test_a_refusal_names_node_and_field(change, says):
    graph = small()
    change(graph)
    with pytest.raises(SaescopeError) as caught:
        g.read(json.dumps(graph))
    assert says in caught.value.message


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 10**6, b'{"a":' * 10**5, b"1" * 5000])
def test_what_is_no_json_is_refused(data):
    with pytest.raises(SaescopeError, match=r"^The graph"):
        g.read(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_graph_is_read_or_refused(data):
    graph = of_tiny()
    part = data.draw(st.sampled_from([graph, graph["metadata"], graph["qParams"], *graph["nodes"], *graph["links"]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(json_values)
    with contextlib.suppress(SaescopeError):  # whose sentences the cases above look at
        read = g.of(graph)
        assert g.unpacked(g.packed(read)) == read
        assert len(laid_out(read).places) == len(read.nodes)


def give(client, graph):
    return client.post("/graphs", files={"file": ("a.json", json.dumps(graph))}, follow_redirects=False)


def test_a_graph_given_as_a_file_is_a_page_whose_nodes_lead_to_features(client):
    answer = give(client, of_tiny())
    assert answer.status_code == 303
    address = answer.headers["location"]
    page = client.get(address, params={"node": "0_3_1", "sae": SLUG})
    assert page.status_code == 200
    assert f'href="/saes/{SLUG}/features/3"' in page.text
    assert "their &lt;b&gt;label" in page.text
    assert page.text.count('class="edge') == 2
    assert page.text.count('class="edge out less"') == 1
    told = client.get(address + ".json", params={"node": "0_3_1", "sae": SLUG}).json()
    assert told["saes"] == [{"layer": 0, "sae": SLUG, "chosen": True}]
    assert told["nodes"][1]["feature_url"] == f"/saes/{SLUG}/features/3"
    assert told["nodes"][1]["feature_label"] == client.get(f"/saes/{SLUG}/features/3.json").json()["label"]
    assert told["nodes"][2]["feature_url"] is None
    assert [(edge["node"]["id"], edge["weight"]) for edge in told["chosen"]["outgoing"]] == [("31_7042_1", -1.3)]
    plain = client.get(address)
    assert 'class="edge' not in plain.text
    assert client.get("/graphs").text.count(address) >= 1
    refused = client.get(address + ".json", params={"node": "9_9_9"})
    assert refused.json()["message"] == "This graph has no node '9_9_9'."
    assert client.post(address + "/delete", follow_redirects=False).status_code == 303
    assert client.get(address).status_code == 404


def test_pasted_and_refused(client):
    pasted = client.post("/graphs", data={"text": json.dumps(of_tiny("another"))}, follow_redirects=False)
    assert pasted.status_code == 303
    assert client.get(pasted.headers["location"] + ".json").json()["saes"] == []
    for files in ({"file": ("a.json", "{")}, {"file": ("a.json", "")}):
        refused = client.post("/graphs", files=files)
        assert refused.status_code == 422
        assert 'role="alert"' in refused.text
    assert client.get("/graphs/nothing.json").json()["code"] == "graph_unknown"
    assert client.get("/graphs.json?cursor=zz").status_code == 422


def test_a_graphs_scan_names_the_subject_whose_saes_are_meant(layered_client):
    graph = of_tiny()
    graph["nodes"].append({"node_id": "1_5_1", "feature": 5, "layer": "1", "ctx_idx": 1, "feature_type": "transcoder"})
    address = give(layered_client, graph).headers["location"]
    told = layered_client.get(address + ".json").json()
    assert told["saes"] == [{"layer": n, "sae": slug, "chosen": False} for n, slug in enumerate(LAYERS)]
    assert [node["feature_url"] for node in told["nodes"]] == [
        None, f"/saes/{LAYERS[0]}/features/3", None, f"/saes/{LAYERS[1]}/features/5"]  # fmt: skip


def test_circuit_tracer_gets_a_feature_by_layer_and_latent(layered_client):
    for scan in ("tiny", LAYERS[1]):
        answer = layered_client.get(f"/features/{scan}/{g.cantor(1, 7)}.json")
        assert answer.status_code == 200
        told = answer.json()
        page = layered_client.get(f"/saes/{LAYERS[1]}/features/7.json").json()
        top = [one for one in page["examples"] if one["interval"] == "top"]
        first = told["examples_quantiles"][0]
        assert first["quantile_name"] == "Top activations"
        assert [one["tokens_acts_list"] for one in first["examples"]] == [one["activations"] for one in top]
        assert [one["tokens"] for one in first["examples"]] == [one["tokens"] for one in top]
        assert all(one["tokens_acts_list"][one["train_token_ind"]] > 0 for one in first["examples"])
        assert told["act_max"] == page["max"]
        assert told["top_logits"] == [one["token"] for one in page["promoted"]]
        again = layered_client.get(answer.url.path, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
    for path, code in ((f"tiny/{g.cantor(5, 7)}", "sae_unknown"), (f"{LAYERS[0]}/{g.cantor(1, 7)}", "sae_unknown"),
                       (f"tiny/{g.cantor(0, 40)}", "latent_out_of_range"), ("tiny/x", "latent_out_of_range"),
                       ("nowhere/5", "sae_unknown")):  # fmt: skip
        refused = layered_client.get(f"/features/{path}.json")
        assert (refused.status_code, refused.json()["code"]) == (404, code), path
