"""AbsTopK: Zhu et al. 2025, "AbsTopK: Rethinking Sparse Autoencoders For Bidirectional Features"."""

from torch import Tensor

from app.sae.base import SAE, SAEConfig
from app.sae.topk import TopK as Encoder
from app.train.idea import Batch, Units
from app.train.ideas.topk import TopK


class AbsTopK(TopK):
    """f = the k entries of (x - b_dec) W_enc + b_enc that are largest by absolute value, signs kept

    The paper's hard thresholding; L is TopK's. That dead latents are revived by AuxK, with signs, is ours: the
    paper's loss is the reconstruction alone (aux_weight 0).
    """

    name, about = "abstopk", "Zhu et al. 2025, AbsTopK: Rethinking Sparse Autoencoders For Bidirectional Features"
    signed = True

    def score(self, pre_acts: Tensor, batch: Batch) -> Tensor:
        return pre_acts.abs()

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        return Encoder(config, **self.folded(units), k=self.options.k, relu=False, by_magnitude=True)
