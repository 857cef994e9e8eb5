"""g-SAE: Olmo et al. 2024, "Features that Make a Difference: Leveraging Gradients for Improved Dictionary Learning"."""

from dataclasses import dataclass

from torch import Tensor

from app.train.idea import Batch
from app.train.ideas import topk
from app.train.ideas.topk import TopK


@dataclass(frozen=True)
class Options(topk.Options):
    beta: float = 1.0


class GSAE(TopK):
    """z = relu((x - b_dec) W_enc + b_enc); f = z where z + beta z |W_dec g| is among the k largest, g = d loss / d x

    L is TopK's. g is the gradient of the subject's summed next-token loss, brought to mean squared norm d, so that
    beta has the same meaning for every subject; the paper's own scale of beta is not known to us. At inference there
    is no gradient: the SAE is read as plain TopK, an approximation.
    """

    name, about, Options = "gsae", "Olmo et al. 2024, Features that Make a Difference", Options
    wants_gradient = True

    def score(self, pre_acts: Tensor, batch: Batch) -> Tensor:
        assert batch.gradient is not None
        effect = (batch.gradient @ self.W_dec.T).abs()
        score: Tensor = pre_acts.relu() * (1 + self.options.beta * effect)
        return score
