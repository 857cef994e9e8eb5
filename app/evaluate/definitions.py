"""Every group of measurements with its metrics: what each is called, how it is computed, which way is better."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["more", "less", ""]


@dataclass(frozen=True)
class Metric:
    title: str
    how: str
    better: Better = ""


@dataclass(frozen=True)
class Group:
    """headline: the metrics that an SAE's page shows. asked: whether it needs more than the SAE and its text, so that
    it is measured only when it is asked for. version: of what the numbers mean."""

    title: str
    about: str
    metrics: dict[str, Metric]
    headline: tuple[str, ...]
    asked: bool = False
    version: int = 1


CORE = Group(
    "Core", "Reconstruction, sparsity, and what the subject loses when the SAE stands in",
    {
        "fvu": Metric("FVU", "Σ|x − x̂|² / Σ|x − mean(x)|², the mean a vector over all tokens", "less"),
        "explained_variance": Metric("Explained variance", "1 − FVU", "more"),
        "l0": Metric("L0", "latents that are not 0, mean over tokens"),
        "l1": Metric("L1", "Σ|a|, mean over tokens"),
        "l1_scaled": Metric("L1, scaled", "Σ|a| times the length of the decoder row, mean over tokens"),
        "cosine": Metric("Cosine", "of x and x̂, mean over tokens", "more"),
        "norm_ratio": Metric("Norm ratio", "|x̂| / |x|, mean over tokens"),
        "ce_recovered": Metric(
            "CE recovered, zero ablation", "(CE of zeros − CE of the SAE) / (CE of zeros − CE of the original)",
            "more"),
        "ce_recovered_mean": Metric(
            "CE recovered, mean ablation", "the same with the mean of x over these tokens in the place of zeros",
            "more"),
        "kl_recovered": Metric(
            "KL recovered, zero ablation", "1 − KL(original ‖ SAE) / KL(original ‖ zeros)", "more"),
        "kl_recovered_mean": Metric(
            "KL recovered, mean ablation", "the same with the mean of x in the place of zeros", "more"),
        "ce_original": Metric("CE of the original", "cross-entropy of the next token, nats"),
        "ce_sae": Metric("CE with the SAE", "the same with x̂ in the place of x", "less"),
        "ce_zero": Metric("CE with zeros", "the same with 0 in the place of x"),
        "ce_mean": Metric("CE with the mean", "the same with the mean of x"),
        "recovery_tokens": Metric("Tokens predicted", "over which CE and KL are means"),
        "dead_share": Metric("Dead", "share of latents that fire on none of these tokens", "less"),
    },
    ("fvu", "l0", "ce_recovered", "ce_recovered_mean", "dead_share"),
)  # fmt: skip
INDEPENDENCE = Group(
    "Independence", "How much latents overlap, in direction and in firing",
    {
        "max_cosine": Metric(
            "Nearest cosine", "of each decoder row with its nearest other (signed SAEs: |cosine|), mean", "less"),
        "max_cosine_median": Metric("Nearest cosine, median", "over latents", "less"),
        "max_cosine_q90": Metric("Nearest cosine, 90%", "over latents", "less"),
        "max_cosine_q99": Metric("Nearest cosine, 99%", "over latents", "less"),
        "max_cosine_greatest": Metric("Nearest cosine, greatest", "over latents", "less"),
        "near_duplicates": Metric("Near duplicates", "share of latents with a nearest cosine above 0.9", "less"),
        "random_max_cosine": Metric("Nearest cosine, random", "the same of as many random directions"),
        "mean_abs_cosine": Metric("Mean |cosine|", "over all pairs of decoder rows", "less"),
        "rms_cosine": Metric("RMS cosine", "over all pairs of decoder rows", "less"),
        "cosine_rows": Metric("Decoder rows", "compared with all others"),
        "max_phi": Metric(
            "Strongest co-activation", "greatest phi (correlation of two firings) of each latent, mean", "less"),
        "phi_mean_abs": Metric("Mean |phi|", "over all pairs of latents that fire ten times or more", "less"),
        "phi_abs_median": Metric("|phi|, median", "over these pairs, to 0.00005", "less"),
        "phi_abs_q99": Metric("|phi|, 99%", "over these pairs", "less"),
        "phi_abs_q999": Metric("|phi|, 99.9%", "over these pairs", "less"),
        "phi_latents": Metric("Latents", "that fire ten times or more, of at most 8,192 looked at"),
        "phi_tokens": Metric("Tokens", "over which firings were counted"),
    },
    ("max_cosine", "random_max_cosine", "near_duplicates", "max_phi"),
)  # fmt: skip
ROBUSTNESS = Group(
    "Robustness", "What stays active when a text is spoilt",
    {
        "jaccard_typos": Metric(
            "Jaccard, typos", "latents active in a text and in the one with 10% of its words of four letters or "
            "more misspelt: those in both over those in either, mean over texts", "more"),
        "jaccard_case": Metric("Jaccard, case", "the same with these words in the other case", "more"),
        "jaccard_whitespace": Metric("Jaccard, spaces", "the same with 10% of the gaps doubled", "more"),
        "jaccard_between": Metric("Jaccard, other text", "the same of two unlike texts, what chance gives"),
        "subject_typos": Metric(
            "Subject's cosine, typos", "of the mean of x over the text and over the misspelt one"),
        "subject_case": Metric("Subject's cosine, case", "with the other case"),
        "subject_whitespace": Metric("Subject's cosine, spaces", "with doubled gaps"),
        "subject_between": Metric("Subject's cosine, other text", "of two unlike texts"),
        "texts": Metric("Texts", "of one sequence each"),
    },
    ("jaccard_typos", "jaccard_case", "jaccard_whitespace", "jaccard_between"),
)  # fmt: skip
ZF = Group(
    "ZF plot and ε", "Length of the feature vector against length of the activation; how far decoder rows are "
    "from orthogonal",
    {
        "zf_ratio": Metric(
            "|f| / |z|", "length of the vector of a times the decoder row's length (and |b_dec|) over length of "
            "the activation, mean; 1 were exact for orthogonal rows"),
        "zf_ratio_q05": Metric("|f| / |z|, 5%", "over tokens"),
        "zf_ratio_median": Metric("|f| / |z|, median", "over tokens"),
        "zf_ratio_q95": Metric("|f| / |z|, 95%", "over tokens"),
        "over_activated": Metric("Over-activated", "share of tokens with |f| > |z|"),
        "within_quarter": Metric("Within ± 0.25", "share of tokens with | |z|² / |f|² − 1 | ≤ 0.25", "more"),
        "epsilon_lbo": Metric(
            "ε lower bound", "| |z|² − |f|₂² | / (|f|₁² − |f|₂²), mean: the least ε such that rows with no cosine "
            "above ε could add up to |z|", "less"),
        "epsilon_lbo_median": Metric("ε lower bound, median", "over tokens", "less"),
        "epsilon_lbo_q99": Metric("ε lower bound, 99%", "over tokens", "less"),
        "epsilon_decoded": Metric(
            "ε of the decoder", "the same with |ẑ|: what the active rows' cosines do come to", "less"),
        "epsilon_tokens": Metric("Tokens", "with two weights or more that are not 0"),
        "centred_ratio": Metric("|f| / |z|, without b_dec", "the same of z − b_dec, as top-AFA matches the lengths"),
        "centred_ratio_median": Metric("|f| / |z|, without b_dec, median", "over tokens"),
        "centred_over_activated": Metric("Over-activated, without b_dec", "share of tokens with |f| > |z − b_dec|"),
        "centred_epsilon_lbo": Metric("ε lower bound, without b_dec", "of z − b_dec and the active rows alone", "less"),
        "centred_epsilon_decoded": Metric("ε of the decoder, without b_dec", "of ẑ − b_dec", "less"),
    },
    ("zf_ratio_median", "centred_ratio_median", "epsilon_lbo", "centred_epsilon_lbo"),
)  # fmt: skip
AUTOINTERP = Group(
    "Autointerp, without an LLM", "How well rules of tokens and topics, learned on other documents, tell where "
    "latents fire: the scores of saescope explain",
    {
        "rules_accuracy": Metric(
            "Balanced accuracy", "on test windows, half of them active, mean over latents with ten of either kind; "
            "0.5 by chance", "more"),
        "rules_accuracy_median": Metric("Balanced accuracy, median", "over these latents", "more"),
        "rules_shuffled": Metric("Shuffled", "the same with other latents' rules"),
        "rules_f1": Metric("F1", "on all test tokens, mean over latents that fire there", "more"),
        "rules_auprc": Metric("AUPRC", "on all test tokens, mean over latents that fire there", "more"),
        "rules_scored": Metric("Latents scored", "with enough test windows"),
        "rules_latents": Metric("Latents", "of the SAE; all are looked at"),
    },
    ("rules_accuracy", "rules_shuffled", "rules_f1", "rules_scored"),
)  # fmt: skip
PROBING = Group(
    "Sparse probing", "How well a class of tokens, told by the text itself, is told by a few latents; tested "
    "on other documents",
    {
        "probe_1": Metric(
            "1 latent", "accuracy of logistic regression on the latent furthest apart between the classes, mean "
            "over classes; 0.5 by chance", "more"),
        "probe_2": Metric("2 latents", "the same with the two furthest apart", "more"),
        "probe_5": Metric("5 latents", "with five", "more"),
        "probe_10": Metric("10 latents", "with ten", "more"),
        "probe_20": Metric("20 latents", "with twenty", "more"),
        "probe_dims_1": Metric("1 dimension", "the same with dimensions of the activation in the place of latents"),
        "probe_dims_20": Metric("20 dimensions", "with twenty of them"),
        "probe_all": Metric("All dimensions", "logistic regression on the whole activation"),
        "probe_classes": Metric("Classes", "with enough tokens of either kind"),
    },
    ("probe_1", "probe_5", "probe_20", "probe_all"),
)  # fmt: skip
ABSORPTION = Group(
    "Absorption", "Whether the latents of a first letter stay silent on words where another latent carries it "
    "along",
    {
        "full_absorption": Metric(
            "Full absorption", "share of test words, of those whose letter a probe tells, where none of the "
            "letter's latents fires and one other brings 0.4 of the probe's projection or more; mean over letters",
            "less"),
        "absorption_fraction": Metric(
            "Absorption fraction", "of the letter's projection, the part that up to three other latents bring; "
            "mean over these words and letters", "less"),
        "letter_probe_f1": Metric("F1 of probes", "logistic regression on the activation, on test words"),
        "letter_latents_f1": Metric(
            "F1 of latents", "logistic regression on the letter's latents, on test words", "more"),
        "letter_split": Metric("Latents a letter", "that tell it together", "less"),
        "letters": Metric("Letters", "with 40 words or more"),
        "letter_words": Metric("Words", "read, a fifth of them for testing"),
    },
    ("full_absorption", "absorption_fraction", "letter_latents_f1"),
)  # fmt: skip
TPP = Group(
    "Targeted perturbation", "What a probe loses when the latents chosen for its class are taken out, and what "
    "other probes lose",
    {
        "tpp_2": Metric(
            "TPP, 2 latents", "drop of the class's own probe in accuracy, less the mean drop of the other classes' "
            "probes; mean over classes", "more"),
        "tpp_5": Metric("TPP, 5 latents", "the same with five taken out", "more"),
        "tpp_10": Metric("TPP, 10 latents", "with ten", "more"),
        "tpp_20": Metric("TPP, 20 latents", "with twenty", "more"),
        "tpp_50": Metric("TPP, 50 latents", "with fifty", "more"),
        "tpp_intended": Metric("Own drop, 10 latents", "of the class's own probe", "more"),
        "tpp_others": Metric("Others' drop, 10 latents", "mean of the other classes' probes", "less"),
        "tpp_clean": Metric("Accuracy before", "of the probes, mean over classes"),
        "tpp_classes": Metric("Classes", "as of sparse probing"),
    },
    ("tpp_2", "tpp_10", "tpp_50"),
)  # fmt: skip
PURSUIT = Group(
    "Matching pursuit", "How well the SAE's own decoder rows reconstruct when they are chosen one after "
    "another, each on what the others left",
    {
        "pursuit_fvu_8": Metric("FVU, 8 steps", "of matching pursuit over the decoder rows at length 1", "less"),
        "pursuit_fvu_16": Metric("FVU, 16 steps", "the same", "less"),
        "pursuit_fvu_32": Metric("FVU, 32 steps", "the same", "less"),
        "pursuit_fvu_64": Metric("FVU, 64 steps", "the same", "less"),
        "pursuit_fvu_at_l0": Metric(
            "FVU at the SAE's L0", "with as many steps as the encoder has active latents", "less"),
        "encoder_fvu": Metric("FVU of the encoder", "on the same tokens", "less"),
        "encoder_l0": Metric("L0 of the encoder", "on the same tokens"),
        "pursuit_steps": Metric(
            "Steps to 0.4", "until what is left is 0.4 of |x − b_dec| long, mean over tokens that get there", "less"),
        "pursuit_reached": Metric("Reach 0.4", "share of tokens that get there within 64 steps", "more"),
    },
    ("pursuit_fvu_at_l0", "encoder_fvu", "pursuit_steps"),
)  # fmt: skip
BIDIRECTIONAL = Group(
    "Two signs", "Of signed latents: whether their signs mean different things",
    {
        "different_signs": Metric(
            "Different", "share of the latents that fire 30 times or more with each sign, whose signs' token "
            "profiles have a cosine below half of what one sign's have in two halves of the text"),
        "two_signs": Metric("Both signs", "share of living latents that fire 30 times or more with each sign"),
        "sign_cosine": Metric("Cosine of the signs", "of the counts of the tokens they fire on, mean"),
        "half_cosine": Metric("Cosine of the halves", "of one sign's counts in two halves of the text, mean"),
        "signed_latents": Metric("Latents", "compared"),
    },
    ("different_signs", "two_signs", "sign_cosine"),
)  # fmt: skip
PLANTED = Group(
    "Planted features", "Recovery of a known dictionary, given by --dictionary",
    {
        "planted_cosine": Metric(
            "Mean max cosine", "greatest cosine of each planted feature with a decoder row, mean (signed SAEs: "
            "|cosine|)", "more"),
        "planted_recovered": Metric("Recovered", "share of planted features with one above 0.9", "more"),
        "planted_latent_cosine": Metric(
            "Latents' cosine", "greatest of each decoder row with a planted feature, mean", "more"),
        "planted_features": Metric("Features", "planted"),
    },
    ("planted_cosine", "planted_recovered"),
    asked=True,
)  # fmt: skip

GROUPS: dict[str, Group] = {
    "core": CORE,
    "independence": INDEPENDENCE,
    "robustness": ROBUSTNESS,
    "zf": ZF,
    "autointerp": AUTOINTERP,
    "probing": PROBING,
    "absorption": ABSORPTION,
    "tpp": TPP,
    "pursuit": PURSUIT,
    "bidirectional": BIDIRECTIONAL,
    "planted": PLANTED,
}
