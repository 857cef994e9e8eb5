"""The ideas there are, by name."""

from app.errors import BadRequest
from app.train.idea import Idea
from app.train.ideas.abstopk import AbsTopK
from app.train.ideas.attention_output import AttentionOutput
from app.train.ideas.batchtopk import BatchTopK
from app.train.ideas.gated import Gated
from app.train.ideas.gba import GBA
from app.train.ideas.gsae import GSAE
from app.train.ideas.jumprelu import JumpReLU
from app.train.ideas.matching_pursuit import MatchingPursuit
from app.train.ideas.matryoshka import Matryoshka
from app.train.ideas.relu_l1 import ReLUL1
from app.train.ideas.top_afa import TopAFA
from app.train.ideas.topk import TopK
from app.train.ideas.transcoder import Transcoder
from app.train.ideas.vsae import VSAE

IDEAS: dict[str, type[Idea]] = {
    idea.name: idea
    for idea in (
        TopK, BatchTopK, JumpReLU, ReLUL1, Gated, Matryoshka, AbsTopK, MatchingPursuit, VSAE, TopAFA, GSAE, GBA,
        Transcoder, AttentionOutput,
    )
}  # fmt: skip


def named(name: str) -> type[Idea]:
    """
    Raises:
        BadRequest: there is none of that name; says which there are.
    """
    if name not in IDEAS:
        raise BadRequest(f"There is no idea {name!r}; there are: {', '.join(IDEAS)}.", idea=name)
    return IDEAS[name]
