"""The flags of hyperparameters that training reads, for every method of pruning."""

from absl import flags

__all__ = ["HYPER_FLAGS", "ONLY_GATES", "ONLY_LAGRANGIAN", "ONLY_NODES"]

_TEXTS = {
    "k_coef": "Nats per open gate. Default: several multiples of a value that suits the number of "
    "gates (18 / nodes; 0.04 weights^-0.4), the best one wins; 0.01 for edges; 0.003 with "
    "--control=hold, which moves it.",
    "init_noise_scale": "Standard deviation of the initial gate parameters. Default: 0.01, but 0.15 for "
    "Heaviside gates on weights and edges.",
    "init_noise_bias": "Method nodes: mean of the initial mask parameters, in [-1, 1]. Default: 0.1.",
    "init": "Methods weights, edges: mean of the initial gate parameters, in [-15, 15]. Default: 0.3 "
    "Heaviside; hard concrete 1 (weights) and 2 (edges).",
    "wd": "Decoupled weight decay per unit learning rate. Default: 0.001 (0.01 hard concrete edges).",
    "lr": "Peak learning rate. Default: 0.01 (nodes, weights), 0.02 (Heaviside edges); hard "
    "concrete 0.2 (weights), 0.3 (edges).",
    "inv_beta2": "1 - beta2 of Adam, in [1e-6, 1]. Default: 0.05 (0.01 hard-concrete edges).",
    "lr_warmup_frac": "Fraction of the steps spent warming up, in [0, 1). Default: 0.",
    "heaviside_temp": "Temperature of the surrogate gradient, above 0. Default: 1.",
    "target_warmup_frac": "Fraction of the steps over which the target sparsity rises. Default: 0.7.",
    "multiplier_lr": "Step size of the Lagrange multipliers' ascent. Default: 0.3.",
    "aim": "Fraction of the target loss at which hold keeps the loss, in (0, 1]. Default: 0.5.",
}
HYPER_FLAGS = {name: flags.DEFINE_float(name, None, text) for name, text in _TEXTS.items()}
ONLY_NODES = ("init_noise_bias",)
ONLY_LAGRANGIAN = ("target_warmup_frac", "multiplier_lr")
ONLY_GATES = ("init", "aim", *ONLY_LAGRANGIAN)
