"""Attention outputs: Kissane et al. 2024, "Interpreting Attention Layer Outputs with Sparse Autoencoders"."""

from app.train.ideas.relu_l1 import ReLUL1


class AttentionOutput(ReLUL1):
    """relu-l1 on z, all heads' outputs side by side: the input of the attention's output projection

    The paper's own training (L1, ReLU, decoder rows of norm 1, resampling) was Bricken et al.'s first one.
    """

    name = "attention-output"
    about = "Kissane et al. 2024, Interpreting Attention Layer Outputs with Sparse Autoencoders"
    reads = "attn.hook_z"
