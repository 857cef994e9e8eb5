"""Transcoder: Dunefsky et al. 2024, "Transcoders Find Interpretable LLM Feature Circuits"."""

from app.train.ideas.relu_l1 import ReLUL1


class Transcoder(ReLUL1):
    """f = relu(x W_enc + b_enc), y_hat = f W_dec + b_dec, where x goes into an MLP and y comes out of it

    L = (|y - y_hat|^2 + lambda sum_i f_i |W_dec_i|) / var(y), the penalty as in relu-l1.
    """

    name, about = "transcoder", "Dunefsky et al. 2024, Transcoders Find Interpretable LLM Feature Circuits"
    architecture, centred = "transcoder", False
