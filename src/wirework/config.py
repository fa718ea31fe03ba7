"""Every setting, once: typed, frozen, validated; an unknown key is an error.

A setting from a paper names its section (Gao et al. 2025, arXiv 2511.13653, unless another is
named). A checkpoint stores its whole config and is rebuilt from that, never from today's defaults.
No torch here: the command line reads this file to print its help.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wirework.errors import InputError, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SiteKind = Literal[
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
    "resid_mid",
    "resid_out",
]
"""Where AbsTopK can act. The first eight are the node locations of App. A.5; `resid_mid` and
`resid_out` (the residual stream after each sublayer) exist in the authors' code only."""

NODE_KINDS: tuple[SiteKind, ...] = (
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
)
"""The node locations of one layer in the order in which the forward pass meets them (App. A.5)."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """Base of all settings: frozen, unknown keys refused, readable from YAML."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        defer_build=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _none_in_words(cls, values: Any) -> Any:
        """Read `none` and `null`, which is all a command line can say, as None where None fits."""
        if not isinstance(values, dict):
            return values
        optional = {
            name
            for name, field in cls.model_fields.items()
            if type(None) in getattr(field.annotation, "__args__", ())
        }
        return {
            name: None if name in optional and value in ("none", "null") else value
            for name, value in values.items()
        }

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "settings") -> Self:
        """Validate a mapping.

        Args:
            values: nested mapping of settings.
            source: where they came from, for the message.

        Raises:
            InputError: one line that names the first offending setting and what would fit.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{source}: {first_problem(cls, error)}") from None

    @classmethod
    def load(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read settings from a YAML file.

        Args:
            path: the YAML file.
            overrides: dotted names to values (`{"model.d_model": 128}`) that win over the file.

        Raises:
            InputError: file missing or not a YAML mapping, or a setting unknown or out of range.
        """
        values = read_yaml(path)
        for name, value in (overrides or {}).items():
            _set_dotted(values, name, value)
        return cls.of(values, str(path))

    def to_yaml(self) -> str:
        """Return the settings, all of them, as YAML."""
        import yaml

        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text


class ModelConfig(Config):
    """The transformer's shape and parts (sec. 2.1, App. A.1; Ferrao et al. 2025, sec. 2)."""

    vocab_size: Count = 2048
    """Number of tokens the tokeniser knows."""
    n_ctx: Count = 256
    """Longest context in tokens."""
    n_layer: Count = 4
    """Number of blocks, each attention then MLP."""
    d_model: Count = 256
    """Width of the residual stream."""
    d_head: Count = 16
    """Width of one attention head. Small heads are easier to read (App. A.1)."""
    n_head: Annotated[int, Field(ge=0)] = 0
    """Number of heads; 0: d_model / d_head."""
    d_mlp: Annotated[int, Field(ge=0)] = 0
    """Number of neurons per block; 0: 4 d_model."""
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """MLP non-linearity; `gelu` is the exact (erf) form."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm keeps zero a privileged value of the residual stream (sec. 2.1)."""
    norm_eps: Annotated[float, Field(gt=0)] | None = None
    """Added under the root; None: machine epsilon of the dtype for RMS, 1e-5 for LayerNorm."""
    norm_bias: bool = True
    """Bias in LayerNorm; RMSNorm has none."""
    positions: Literal["none", "added", "concat", "sinusoidal_concat"] = "none"
    """`added`: learned vectors on the token embedding. `concat`: learned (or fixed sinusoidal)
    vectors beside what attention and MLP read, never in the residual stream (App. A.1)."""
    d_pos: Count | None = None
    """Width of concatenated position vectors; only with `concat` and `sinusoidal_concat`."""
    attention_scale: Literal["rsqrt", "none"] = "rsqrt"
    """Scores times 1/sqrt(d_head), or unscaled as in GPT-Neo."""
    attention_windows: tuple[Count | None, ...] | None = None
    """Per layer, how many positions a token sees, itself included; None: all before it."""
    qkv_bias: bool = True
    """Biases on queries, keys and values."""
    bias: bool = True
    """Biases on the attention output and both MLP matrices."""
    tied_embedding: bool = False
    """Use the embedding as the unembedding."""
    sinks: bool = True
    """A learned logit per head that only enters the softmax denominator (App. A.1)."""
    bigram: bool = True
    """A dense vocab x vocab table whose row of the current token is added to the logits."""
    learn_bigram: bool = True
    """Whether the bigram table is trained; False keeps it as loaded."""
    logit_bias: bool = False
    """A bias on the final logits; the released models have one."""
    residual_activation: Literal["identity", "relu"] = "identity"
    """A non-linearity on the residual stream after each sublayer, as in the authors' code."""
    act_fraction: Fraction | None = 0.25
    """Share of each site that AbsTopK keeps per token; None turns it off everywhere."""
    act_sites: tuple[SiteKind, ...] = NODE_KINDS
    """Sites where AbsTopK acts."""

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        if not self.n_head and self.d_model % self.d_head:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by d_head {self.d_head}: "
                "change one of them or give n_head"
            )
        # Not by assignment: what is derived does not count as set by the user.
        self.__dict__["n_head"] = self.n_head or self.d_model // self.d_head
        self.__dict__["d_mlp"] = self.d_mlp or 4 * self.d_model
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        concat = self.positions in ("concat", "sinusoidal_concat")
        if concat and self.d_pos is None:
            raise ValueError(f"positions: {self.positions} needs d_pos")
        if not concat and self.d_pos is not None:
            raise ValueError(
                f"d_pos is only used with concatenated positions, not {self.positions!r}"
            )
        if self.attention_windows is not None and len(self.attention_windows) != self.n_layer:
            raise ValueError(
                f"attention_windows has {len(self.attention_windows)} entries for "
                f"{self.n_layer} layers"
            )
        for kind in self.act_sites:
            if self.site_k(kind) == 0:
                raise ValueError(
                    f"act_fraction {self.act_fraction} keeps nothing of {kind} "
                    f"({self.site_width(kind)} wide)"
                )
        return self

    def site_width(self, kind: SiteKind) -> int:
        """Return the number of nodes (channels) at a site of this kind."""
        if kind in ("attn.q", "attn.k", "attn.v"):
            return self.n_head * self.d_head
        if kind == "mlp.post_act":
            return self.d_mlp
        return self.d_model + (self.d_pos or 0) if kind.endswith("act_in") else self.d_model

    def site_k(self, kind: SiteKind) -> int | None:
        """Return how many entries AbsTopK keeps per token at this kind of site; None: all."""
        if self.act_fraction is None or kind not in self.act_sites:
            return None
        return int(self.act_fraction * self.site_width(kind))


class DataConfig(Config):
    """Where text comes from and how it becomes tokens."""

    corpus: Annotated[str, Field(min_length=1)] = "python"
    """`python` (source on this machine), `stories` (simple children's stories, generated, 60 MB
    unless `max_bytes` says otherwise), a file or folder of text, JSONL or Parquet,
    `hub:NAME` (Hugging Face; extra `hub`), or a Python function that yields documents,
    `module:function` or `file.py:function`."""
    field: str = "text"
    """Field that holds the text, for JSONL, Parquet and hub corpora."""
    max_bytes: Count | None = None
    """Stop after this many bytes of text; None: take all."""
    min_quotes: Fraction | None = None
    """Corpus `python`: leave out files where less than this share of the characters are quotes."""
    stories_seed: Annotated[int, Field(ge=0)] = 0
    """Corpus `stories`: another seed tells other stories."""
    mix: Annotated[str, Field(min_length=1)] | None = None
    """A second corpus, of the same kinds, whose documents are scattered among the first's; where it
    ends the first goes on alone. `wirework.tasks:practice_texts`: prompts of the built-in tasks
    with their answers, other ones than those the tasks measure."""
    mix_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the bytes that come from `mix`."""
    vocab_size: Count = 2048
    """Vocabulary of the tokeniser to train; ignored with `tokenizer`."""
    answers: Literal["auto", "python", "stories", "none"] = "auto"
    """Tasks whose answers the tokeniser to train holds as single tokens: the twenty on Python, the
    names of `ioi` and what stories give, or none; `auto`: those of `stories` for that corpus,
    of `python` for any other."""
    tokenizer: Path | None = None
    """A tokenizer.json to use instead of training one."""
    tokenizer_bytes: Count = 20_000_000
    """How much text the tokeniser is trained on."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of documents held out, chosen by the hash of their text."""
    shard_tokens: Count = 10_000_000
    """Tokens per shard file."""
    workers: Count = 2
    """Processes that tokenise."""
    cache: Path = Path("data")
    """Folder of prepared corpora; each is named after what it was made from."""

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.min_quotes is not None and "python" not in (self.corpus, self.mix):
            raise ValueError(f"min_quotes is for the corpus python, not for {self.corpus}")
        return self


class WeightSparsityConfig(Config):
    """How many weights stay nonzero, and when (sec. 2.1, App. A.2)."""

    l0_fraction: Fraction = 1 / 64
    """Nonzero share of each weight matrix and bias. Our default; the paper goes to 1/1000."""
    floor: Annotated[int, Field(ge=0)] = 4
    """Least nonzeros of a neuron or attention channel; 0 turns it off (App. A.2, `j`)."""
    anneal_start: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of training before the fraction begins to fall (1% in the authors' code)."""
    anneal_end: Fraction = 0.5
    """Share of training at which the fraction reaches its target (App. A.2)."""
    sharkfin: bool = True
    """Multiply the learning rate by 1/sqrt(nonzero fraction); annealing needs it (App. A.2)."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.anneal_end <= self.anneal_start:
            raise ValueError(
                f"anneal_end {self.anneal_end} must come after anneal_start {self.anneal_start}"
            )
        return self


class GatingConfig(Config):
    """Gates that pick each token's winners while a model trains (Ferrao et al. 2025)."""

    level: Literal["local", "global", "both"] = "local"
    """What scores the units: each block's clean input, the final state of a first clean pass, or
    the sum of both, which nobody has trained."""
    k_attention: Count = 8
    """Channels of the concatenated head outputs that stay on, per token and layer."""
    k_neurons: Count = 8
    """Neurons that stay on, per token and layer."""
    temperature_attention: Annotated[float, Field(gt=0)] = 0.1
    """Of the soft mask whose gradient the hard one has; lower is steeper."""
    temperature_neurons: Annotated[float, Field(gt=0)] = 0.1
    """The same for neurons."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-12
    """Added to the width of the soft mask's slope."""
    mask: Literal["hard", "soft"] = "hard"
    """`soft` leaks the next token through the mask: only to reproduce early models."""
    base_coef: Annotated[float, Field(ge=0)] = 1.0
    """Of the clean stream's next-token loss."""
    ablated_coef: Annotated[float, Field(ge=0)] = 1.0
    """Of the ablated stream's; the paper's text sums the two, its code has 0.1."""
    reconstruction_coef: Annotated[float, Field(ge=0)] = 0.1
    """Of the mean squared difference between the streams, each token of unit length; with 0 it is
    not computed and 0."""

    def check_fits(self, model: ModelConfig) -> None:
        """Make sure that there are more units than winners.

        Raises:
            InputError: there are not.
        """
        units = {"k_attention": model.n_head * model.d_head, "k_neurons": model.d_mlp}
        for name, width in units.items():
            k = getattr(self, name)
            if k >= width:
                raise InputError(f"{name} must be below the model's {width} units, got {k}")


class OptimizerConfig(Config):
    """AdamW as in App. A.2."""

    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Peak learning rate before the sharkfin factor. Ours; the paper sweeps it."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the second moment."""
    eps: Annotated[float, Field(gt=0)] = 0.1
    """Large on purpose; makes sense only at the gradient scale that `grad_scale` sets."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """On matrices only: not on biases, norms or sinks."""
    grad_scale: Literal["normalise", "clip", "clip_norm", "none"] = "normalise"
    """`normalise`: root mean square of the whole gradient becomes 1 at every step (the authors'
    code); `clip`: only if it is above 1 (the paper's text); `clip_norm`: the norm of the whole
    gradient is at most 1 (Ferrao et al. 2025), which wants an eps near 1e-8; `none`: leave it."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of training over which the learning rate rises from 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """How it falls to 0 after: in a line, or as half a cosine (Ferrao et al. 2025)."""


class TrainConfig(Config):
    """One training run, whole."""

    name: str = "run"
    """Folder of the run under `runs`."""
    runs: Path = Path("runs")
    """Where run folders live."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights and of the order of the data."""
    steps: Count = 2000
    """Optimizer steps."""
    batch_size: Count = 32
    """Sequences per step, of model.n_ctx tokens each."""
    model: ModelConfig = ModelConfig()
    """The transformer."""
    data: DataConfig = DataConfig()
    """The corpus and its tokens."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and the learning rate."""
    weight_sparsity: WeightSparsityConfig | None = WeightSparsityConfig()
    """Weight sparsity; None (`null`) trains dense weights."""
    gating: GatingConfig | None = None
    """Self-ablation: gates that pick each token's winners, beside the model and dropped after
    training (Ferrao et al. 2025); None trains without."""
    bigram_start: Literal["counts", "zeros"] = "counts"
    """Where the bigram table begins: smoothed log-probabilities of the training tokens, so that the
    rest of the model learns what pairs cannot say, or zeros. Ours."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bf16 or fp32; `auto` times both on this device at the start."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    eval_every: Count = 200
    """Steps between evaluations on the fixed held-out batches."""
    eval_batches: Count = 16
    """How many batches an evaluation reads."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints stay; the best one stays too."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log to these (extra `track`)."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.data.tokenizer is None and self.data.vocab_size != self.model.vocab_size:
            raise ValueError(
                f"data.vocab_size {self.data.vocab_size} and model.vocab_size "
                f"{self.model.vocab_size} differ: the tokeniser to train must fit the model"
            )
        if self.gating is not None:
            self.gating.check_fits(self.model)
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        return self


Score = Literal["attribution", "signed_attribution", "integrated_gradients", "atp_star", "random"]
"""Ways to score nodes without a search (`circuits/scores.py`)."""


class PruneConfig(Config):
    """Learned pruning of one task (sec. 2.2, App. A.5); the centres of the paper's search."""

    finder: Literal["learned", Score] = "learned"
    """What orders the nodes: learned masks, or a score as a baseline (Fig. 31). Bisection, clean-up
    and calibration are the same for all."""
    warm_start: Score | None = None
    """Score by which learned masks begin: nodes that score low begin near being removed. Ours."""

    target_loss: Annotated[float, Field(gt=0)] = 0.15
    """Task loss in nats that the circuit must reach (sec. 2.2)."""
    ablation: Literal["mean", "resample"] = "mean"
    """What a removed node is put at: its mean (sec. 2.2), or its values at random tokens of the
    training text, others at each step (App. E). The target must then be met both ways. Ours."""
    draws: Count = 3
    """With `ablation="resample"`: draws of such values, in each of which the target must be met. Of
    a single one a clean-up keeps what happens to help."""
    trials: Count = 8
    """Settings tried, each a full learned pruning; the smallest circuit wins. The paper: 256."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How settings are drawn: with regard to the sizes found before, or each for itself."""
    parallel: Count = 4
    """Trials carried by one forward pass."""
    steps: Count = 300
    """Optimizer steps of one trial. Ours."""
    stop_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.25, 0.5)
    """Shares of the steps at which a trial stops whose circuit is larger than that of half of the
    trials that came there; none: every trial runs to its end. Ours."""
    finalists: Count = 4
    """How many of the best trials are cleaned up; the smallest is then merged with the others."""
    also: tuple[Score, ...] = ("atp_star",)
    """Scores whose order is cleaned up beside the finalists': the clean-up ends in another local
    minimum from each. Ours."""
    batch_pairs: Count = 32
    """Task pairs per step, two sequences each; the paper uses 64."""
    eval_pairs: Count = 128
    """Pairs on which circuits are discretised and judged, apart from those trained on."""
    k_coef: Annotated[float, Field(gt=0)] = 1e-4
    """Loss per gate left on; centre of the search."""
    init_noise_scale: Annotated[float, Field(ge=0)] = 1e-2
    """Spread of the initial mask parameters; centre of the search."""
    init_noise_bias: float = 1e-1
    """Mean of the initial mask parameters; centre of the search."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    """AdamW's, on the mask parameters; centre of the search."""
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """AdamW's, on the mask parameters; centre of the search."""
    inv_beta2: Annotated[float, Field(gt=0, lt=1)] = 5e-2
    """1 - beta2; centre of the search."""
    lr_warmup: Annotated[float, Field(ge=0, lt=1)] = 5e-2
    """Share of steps over which the rate rises; it falls linearly to 0 after."""
    heaviside_temp: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the sigmoid whose derivative stands in for the step's."""
    tie_qk: bool = False
    """One mask for query channel c and key channel c of a head; App. A.5 has them untied and names
    that as a regret. The last clean-up, with the edges, takes each node for itself."""
    clean_up: bool = True
    """Leave out nodes that the target does not need after all; the paper did it by hand."""
    prune_edges: bool = True
    """Then also leave out edges between kept nodes that the target does not need (ours)."""
    anyway: bool = False
    """Go on where the whole model's own task loss is above the target, or the target above chance.
    What does not reach the target counts as no circuit where sizes are compared."""
    mean_batches: Count = 8
    """Batches of training text over which the means are taken."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of mask noise, of the search and of which pairs train, judge and are held out."""


PathMetric = Literal["kl", "logit_difference", "task_loss"]
"""What the removal of a path edge may cost; each is counted so that less is better."""

PathAblation = Literal["corrupted", "zero", "mean"]
"""What a removed path edge brings of its source."""


class AcdcConfig(Config):
    """Automatic circuit discovery on the head-level graph (Conmy et al. 2023, arXiv 2304.14997)."""

    tau: tuple[Annotated[float, Field(gt=0)], ...] = (0.01,)
    """A path edge is removed when the metric grows by less than this; several make a sweep. The
    self-ablation paper has 0.01."""
    metric: PathMetric = "kl"
    """`kl`: nats between the clean model's next-token distribution and the patched one's at each
    prompt's last token, mean over prompts; `logit_difference`: minus the mean of right minus wrong
    logit; `task_loss`: nats, mean cross-entropy between the two answers."""
    ablation: PathAblation = "corrupted"
    """What a removed path edge brings: its source's value on the pair's other prompt, nothing, or
    its source's mean over all tokens of all prompts."""
    both: bool = False
    """Take each prompt of a pair as the clean one, the other as the corrupted one; by itself only
    the first is clean."""
    pairs: Count = 16
    """Pairs of the task to run on."""
    order: Path | None = None
    """A file with all path edges in the order in which to test them, `SOURCE -> TARGET` a line;
    None: from the last to the first (docs/acdc.md)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of which pairs are taken."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.tau or len(set(self.tau)) < len(self.tau):
            raise ValueError(f"give at least one tau and each tau once, got {self.tau}")
        return self


class FrontierConfig(Config):
    """Circuit size against capability: the models that are trained and pruned (Figs. 2, 3, 10, 33).

    Sparse models: every width with every L0 and every activation fraction. Dense ones: every
    dense width with every length of training, so that one comes close to each sparse one's loss.
    """

    train: TrainConfig = TrainConfig()
    """What all models have in common. The study sets the name and place of a run, its width, L0
    and activation fraction, and the seed, steps and learning rate of dense ones."""
    prune: PruneConfig = PruneConfig()
    """The search for each circuit; its target loss is that of Fig. 3."""
    tasks: tuple[str, ...] = ()
    """Behaviours, names or JSONL files; none: all built-in ones."""
    widths: tuple[Count, ...] = ()
    """d_model of the sparse models."""
    l0_counts: tuple[Count, ...] = ()
    """Nonzero entries of all matrices and biases together, the same number at every width."""
    act_fractions: tuple[Fraction, ...] = (0.25,)
    """Shares that AbsTopK keeps; 1 keeps all."""
    dense_widths: tuple[Count, ...] = ()
    """d_model of the dense models."""
    dense_steps: tuple[Count, ...] = ()
    """Their lengths of training, each with a schedule of its own; none: that of the sparse ones."""
    dense_lr: Annotated[float, Field(gt=0)] = 0.25
    """Their learning rate over the sparse one's, which is too high for dense weights."""
    twin_seed: Annotated[int, Field(ge=0)] = 1
    """Seed of a second run of the matched dense model, for Fig. 33."""
    target_losses: tuple[Annotated[float, Field(gt=0)], ...] = (0.5, 0.3, 0.15, 0.05, 0.02, 0.005)
    """Targets, in nats, at which the matched pair is pruned for Fig. 2; the paper: 0.5 to 0.002."""
    match_within: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """How far apart two held-out losses may be, as a share of the dense one, to count as equal."""


class SaeConfig(Config):
    """A sparse autoencoder of one site (Ferrao et al. 2025), trained by sae-lens.

    Defaults are what a CPU can do in minutes; the paper's are named where they differ.
    """

    site: str | None = None
    """Which site it reads; None: the MLP output three quarters down, `6.mlp.resid_delta` of 8
    layers (the paper's)."""
    architecture: Literal["standard", "topk", "jumprelu"] = "standard"
    """`standard`: ReLU and an L1 penalty (the paper's). `topk`: the k largest. `jumprelu`: a
    learned threshold per feature and an L0 penalty."""
    expansion: Count = 16
    """Features over the width of the site (the paper's 16)."""
    tokens: Count = 600_000
    """Tokens to train on, each once. The paper: 100 million."""
    batch_size: Count = 256
    """Tokens per step. The paper: 4096."""
    lr: Annotated[float, Field(gt=0)] = 5e-3
    """Adam's learning rate, constant until it falls. The paper: 1e-5; its code: 3e-4."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the steps, the last ones, over which the rate falls to 0 (the authors' code)."""
    l1_coef: Annotated[float, Field(ge=0)] = 5.0
    """Of the L1 penalty of `standard`, activations scaled to a mean norm of sqrt(width)."""
    l0_coef: Annotated[float, Field(ge=0)] = 1.0
    """Of the L0 penalty of `jumprelu`, activations scaled the same way."""
    k: Count = 8
    """Features on per token, of `topk`."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the steps over which the penalty rises to its coefficient (the paper's)."""
    buffer: Count = 65_536
    """Tokens whose activations are held and mixed, in memory: 4 bytes times the site's width each.
    Half of them stay when the other half is served."""
    skip_first: Annotated[int, Field(ge=0)] = 0
    """Tokens at the start of each window that are neither trained on nor replaced in measuring.
    Windows of ours begin anywhere in the text, with no token that marks a beginning."""
    eval_tokens: Count = 32_768
    """Held-out tokens to measure it on."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights and of the order of the text."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.tokens // self.batch_size

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.steps < 20:
            raise ValueError(
                f"tokens {self.tokens} are {self.steps} steps of batch_size {self.batch_size}, too "
                f"few to train an autoencoder: at least {20 * self.batch_size}"
            )
        if self.buffer < 2 * self.batch_size:
            raise ValueError(
                f"buffer {self.buffer} must hold two batches of batch_size {self.batch_size}"
            )
        return self


class PatternConfig(Config):
    """The embedded explainer: n-gram patterns (Foote et al. 2023, "Neuron to Graph")."""

    keep_share: Fraction = 0.5
    """Share of an activation that a shortened or changed context must keep."""
    max_context: Count = 12
    """Longest pattern in tokens, the one that activates included. Ours."""
    seeds: Count = 32
    """Most activating places of a neuron's excerpts that patterns are learned from."""
    seed_share: Fraction = 0.2
    """Places below this share of the neuron's peak are no activating places. Ours."""
    substitutes: Count = 4
    """Random tokens tried in place of each, to see whether it matters."""
    alternatives: Annotated[int, Field(ge=0)] = 6
    """Likely tokens tried in place of each that matters: from other places of the same neuron, and
    nearest in the model's embedding, where the paper asks another model."""


class ServerConfig(Config):
    """A language model behind an OpenAI-compatible server (extra `explain`)."""

    model: str = ""
    """Name of the model, as the server knows it."""
    base_url: str | None = None
    """Address, `http://127.0.0.1:8000/v1`; None: that of OpenAI, or what OPENAI_BASE_URL says."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. A server of your own may need none."""
    logprobs: bool = True
    """Ask for log-probabilities and predict expected values; a server that has none, or refuses
    them, has its numbers read as they stand."""
    detect: bool = True
    """Also ask of each excerpt whether the neuron is active in it."""
    concurrency: Count = 8
    """Requests under way at once."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds to wait for an answer."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Tries after the first, for a busy (429), failing (5xx) or silent server, ever further apart.
    They do not count as requests."""
    max_requests: Count | None = None
    """Stop after so many requests; what is done is kept."""
    give_up_after: Count = 5
    """Stop after so many neurons failed with none between them that did not."""
    price_in: Annotated[float, Field(ge=0)] | None = None
    """Price of a million prompt tokens, in any currency, for the estimate."""
    price_out: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens of answers."""
    cache: Path | None = None
    """Folder of answers, which several runs may share; None: `cache` in the folder of the run."""


class ExplainConfig(Config):
    """Neuron explanations and their scores (Bills et al. 2023)."""

    explainer: Literal["patterns", "language_model"] = "patterns"
    """Patterns need no model and no server; a language model is asked over HTTP."""
    sites: tuple[str, ...] = ()
    """Sites whose neurons are explained; none: `mlp.post_act` of every layer."""
    neurons: Count | None = 200
    """How many of them, drawn at random; None: all."""
    only: tuple[str, ...] = ()
    """These neurons, each SITE.INDEX (`0.mlp.post_act.17`), instead of drawn ones."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the neurons and of random excerpts."""
    excerpt_tokens: Annotated[int, Field(ge=2)] = 64
    """Length of an excerpt, which is all that the neuron and its explainer see."""
    explain_excerpts: Count = 4096
    """Excerpts of training text that are read for those to explain from."""
    score_excerpts: Count = 2048
    """Excerpts of held-out text that are read for those to score on."""
    explain_top: Count = 20
    """Most activating excerpts that an explanation is made from; a language model sees the first
    `shown` of them."""
    explain_random: Annotated[int, Field(ge=0)] = 20
    """Random excerpts that patterns learn from as well; a language model sees none."""
    shown: Count = 5
    """Excerpts that a language model is shown."""
    score_top: Count = 5
    """Most activating held-out excerpts to score on."""
    score_random: Count = 5
    """Random held-out excerpts to score on."""
    active_share: Fraction = 0.2
    """For detection: an excerpt is activating if the neuron reaches this share of its peak."""
    patterns: PatternConfig = PatternConfig()
    """The embedded explainer."""
    server: ServerConfig = ServerConfig()
    """The language model."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.explainer == "language_model" and not self.server.model:
            raise ValueError("explainer language_model needs server.model, the model's name")
        if self.shown > self.explain_top:
            raise ValueError(f"shown {self.shown} is more than explain_top {self.explain_top}")
        return self


Instrument = Literal["language", "sparsity", "acdc", "sae", "explain"]
"""What `measure` can look at a model with."""


class MeasureConfig(Config):
    """The instruments that set models side by side (Ferrao et al. 2025)."""

    which: tuple[Instrument, ...] = ("language", "sparsity", "acdc", "sae", "explain")
    """Which instruments; `sparsity` counts gates too, where a model has them."""
    task: str = "ioi"
    """The behaviour whose path edges `acdc` counts: a name, a JSONL file or a function."""
    n_tokens: Count = 65_536
    """Held-out tokens that `language` and `sparsity` read."""
    acdc: AcdcConfig = AcdcConfig()
    """One tau."""
    sae: SaeConfig = SaeConfig()
    """The sparse autoencoder."""
    explain: ExplainConfig = ExplainConfig()
    """Neuron explanations."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.which or len(set(self.which)) < len(self.which):
            raise ValueError(f"which must name at least one instrument and each once: {self.which}")
        if len(self.acdc.tau) > 1:
            raise ValueError(f"measure counts edges at one acdc.tau, got {self.acdc.tau}")
        return self


class SelfAblationConfig(Config):
    """The table of Ferrao et al. 2025: a plain model and gated ones, measured with all instruments.

    Every level with every k, the same k for attention units and neurons, and the plain model, each
    trained with every seed.
    """

    train: TrainConfig = TrainConfig()
    """What all models have in common; the study sets name, place, seed and gates. Coefficients and
    temperatures come from its `gating`, if it has one."""
    measure: MeasureConfig = MeasureConfig()
    """The instruments; each model's own seed is theirs too."""
    levels: tuple[Literal["local", "global", "both"], ...] = ("local", "global")
    """Where gates read."""
    ks: tuple[Count, ...] = (1, 2, 4, 8)
    """Winners per token and layer."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    """Each is a training of its own, of every model."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("levels", "ks", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must name at least one value and each once: {values}")
        return self


def _set_dotted(values: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        inner = values.get(parent)
        values[parent] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        values = inner
    values[last] = value


def first_problem(cls: type[Config], error: ValidationError) -> str:
    """Say in one line what is wrong with the first offending setting."""
    return problem(cls, error.errors(include_url=False)[0])


def problem(cls: type[Config], details: ErrorDetails) -> str:
    """Say one of a validation's errors in one line."""
    path = [str(part) for part in details["loc"]]
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        known = _fields_at(cls, path[:-1])
        return f"unknown setting {name!r}{nearest(path[-1], known)}"
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "value_error":
        return f"{name}: {message}" if name else message
    return f"{name}: {message[0].lower()}{message[1:]}, got {details['input']!r}"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        InputError: missing, not YAML, or not a mapping of names to values.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected settings (name: value), got {type(values).__name__}")
    return {str(name): value for name, value in values.items()}


def _fields_at(cls: type[Config], path: list[str]) -> list[str]:
    """Names of the settings of the (nested) config at `path`."""
    for part in path:
        annotation = cls.model_fields[part].annotation
        options = getattr(annotation, "__args__", (annotation,))
        cls = next(option for option in options if isinstance(option, type))
    return list(cls.model_fields)
