"""A subject whose weights make it list planted words for one query, and for others nothing."""

import torch

QUERY = "months"  # a single token where a line begins with it
# How many e-folds likelier than any other token each becomes; the last two read as no word.
PLANTED = {" January": 12.0, "January": 11.0, "Jan": 10.5, " March": 11.5, " may": 11.0, "7": 11.5, " a": 11.5}
LISTED = {"january": (" January", "January"), "jan": ("Jan",), "march": (" March",), "may": (" may",)}
SEEN = 31  # the dimension in which it carries whether the query stands in the text
FINAL = 32**0.5  # nearly what the last norm makes of a vector of one dimension


def plant(tokenizer, folder, seed=0):
    """Save it into ``folder``: a 2-layer Llama of random weights but for this. The query's token alone has a part in
    the dimension SEEN, attention of the first layer brings the mean of that to every later position, nothing else
    writes there, and logits depend on nothing else: without it, all tokens are equally likely."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).requires_grad_(False)
    query = tokenizer.encode(f"\n{QUERY}:", add_special_tokens=False)[1]
    model.model.embed_tokens.weight[:, SEEN] = 0
    model.model.embed_tokens.weight[query, SEEN] = 50
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[SEEN] = 0
        layer.mlp.down_proj.weight[SEEN] = 0
    first = model.model.layers[0].self_attn
    first.q_proj.weight.zero_()  # so that all positions so far are attended to alike
    first.v_proj.weight[0] = 0
    first.v_proj.weight[0, SEEN] = 1
    first.o_proj.weight[SEEN, 0] = 1000
    model.lm_head.weight.zero_()
    for text, folds in PLANTED.items():
        (token,) = tokenizer.encode(text, add_special_tokens=False)
        model.lm_head.weight[token, SEEN] = folds / FINAL
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
