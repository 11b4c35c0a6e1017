"""The work of `bench.py` in a plain, careful PyTorch loop: one JSON line per measurement.

    python -m experiments.bench_torch --workloads=S,M --measurements=step,select,calibrate
    python -m experiments.bench_torch --check     loss and mask gradient equal circuitjax's, to 1e-4

What a good script does is done: frozen weights, one fused matrix for q, k and v, fused attention,
`F.rms_norm`, logits at the last position only, fused AdamW, all cores, no gradient where none is
needed. PyTorch is no dependency of the project: `pip install torch`.

    step              one training step
    select            12 circuits (a plain bisection of N nodes) on 20 batches, no gradient
    probe             the same per circuit
    calibrate         16 L-BFGS steps whose closure runs the model over the 20 batches
    calibrate_cached  the same on cached differences, with the forward passes that produce them
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import flags

from circuitjax.core.host import keep_freed_memory
from circuitjax.model.config import SITES
from experiments import bench_timing, bench_workloads
from experiments.bench_timing import Timed, cores, measured_line, peak_memory, print_line, timed
from experiments.bench_workloads import (
    LABELLED_BY,
    WORKLOADS,
    Arrays,
    Workload,
    chosen,
    draw,
    reference_gradient,
)
from experiments.command import exit_on_bad_input, parse_flags, run_main
from experiments.progress import LINES, tell_next

flags.adopt_module_key_flags(bench_timing)
flags.adopt_module_key_flags(bench_workloads)
_ALL = ["step", "select", "calibrate"]
_MEASUREMENTS = flags.DEFINE_list("measurements", _ALL, "Which of the three.")
_DEVICE = flags.DEFINE_string("device", None, "cpu or cuda; default: cuda where there is one.")
_ONEDNN = flags.DEFINE_bool(
    "onednn", False, "Matrix products by oneDNN instead of MKL, which is slow on some processors."
)
_CHECK = flags.DEFINE_bool("check", False, "Compare loss and mask gradient with circuitjax's.")

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    parse_flags(lambda argv: None, sys.argv)  # shows the help, if it was asked for
    print("error: this comparison needs PyTorch: pip install torch", file=sys.stderr)
    sys.exit(2)

K_COEF_TIMES_NODES, PROBES, STEPS = 18.0, 12, 16

Gates = Mapping[str, torch.Tensor]


class Heaviside(torch.autograd.Function):
    """Open where tau > 0; backward the derivative of the logistic function."""

    @staticmethod
    def forward(ctx: Any, tau: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(tau)
        return (tau > 0).to(tau.dtype)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> torch.Tensor:
        (tau,) = ctx.saved_tensors
        open_share = torch.sigmoid(tau)
        return cotangent * open_share * (1 - open_share)


class FrozenLinear(torch.autograd.Function):
    """x times a frozen kernel plus bias, by oneDNN on packed weights (a private operator)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, packed: Any, back: Any, bias: Any) -> torch.Tensor:
        ctx.back = back
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        out = torch.ops.mkldnn._linear_pointwise(cotangents[0], ctx.back, None, "none", [], "")
        return out, None, None, None


class Model:
    """The gated transformer with frozen weights; gates are {site: `[L, W]`}."""

    def __init__(self, workload: Workload, arrays: Arrays, abs_top_k: bool, device: str) -> None:
        self.workload, self.arrays = workload, arrays
        self.abs_top_k, self.device = abs_top_k, device
        self.gaps: list[torch.Tensor] | None = None  # filled while `decided` looks

        def put(value: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(value)).to(device)

        self.shared = {name: put(v) for name, v in arrays.params.items() if name != "layers"}
        self.fills = {site: put(fill) for site, fill in arrays.fills.items()}
        length = workload.length
        hidden = np.triu(np.full((length, length), -np.inf, np.float32), k=1)
        stack = arrays.params["layers"]
        self.layers = []
        for i in range(workload.num_layers):
            names = ("attn_out_bias", "mlp_in_bias", "mlp_out_bias", "attn_norm_scale")
            layer = {name: put(stack[name][i]) for name in (*names, "mlp_norm_scale")}
            for name in ("attn_out", "mlp_in", "mlp_out"):
                layer[name] = put(stack[name][i].T)  # as `F.linear` wants it
            layer["qkv"] = put(np.concatenate([stack[f"attn_{n}"][i] for n in "qkv"], axis=1).T)
            layer["qkv_bias"] = put(np.concatenate([stack[f"attn_{n}_bias"][i] for n in "qkv"]))
            # The sink is one more key of zeros with the sink's logit as its mask, its value zero.
            mask = np.zeros((1, workload.num_heads, length, length + 1), np.float32)
            mask[..., :length] = hidden
            mask[..., length] = stack["attn_sink"][i][:, None]
            layer["mask"] = put(mask)
            if _ONEDNN.value:
                for name in ("qkv", "attn_out", "mlp_in", "mlp_out"):
                    layer[f"{name}_back"] = layer[name].t().contiguous().to_mkldnn()
                    layer[name] = layer[name].to_mkldnn()
            self.layers.append(layer)

    @staticmethod
    def _linear(layer: Mapping[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
        kernel, bias = layer[name], layer[f"{name}_bias"]
        if _ONEDNN.value:
            out: torch.Tensor = FrozenLinear.apply(x, kernel, layer[f"{name}_back"], bias)
            return out
        return F.linear(x, kernel, bias)

    def _node(self, gates: Gates, site: str, i: int, x: torch.Tensor) -> torch.Tensor:
        if self.abs_top_k:
            size, k = x.abs(), self.workload.width(site) // 4
            if self.gaps is not None:
                top = torch.topk(size, k + 1).values
                gap = 1 - top[..., k] / top[..., k - 1]  # NaN among zeros: no matter which stays
                self.gaps.append(gap.nan_to_num(1.0).amin(-1))
            kept = torch.topk(size, k, sorted=False).indices
            x = torch.zeros_like(x).scatter(-1, kept, x.gather(-1, kept))
        gate = gates[site][i]
        return torch.addcmul((1 - gate) * self.fills[site][i], gate, x)

    def __call__(self, tokens: torch.Tensor, gates: Gates) -> torch.Tensor:
        """Logits `[B, V]` after the last of tokens `[B, T]`."""
        work = self.workload
        width, eps = (work.d_model,), float(np.finfo(np.float32).eps)
        batch, length = tokens.shape
        x = F.embedding(tokens, self.shared["embed"])
        for i, layer in enumerate(self.layers):
            read = F.rms_norm(x, width, layer["attn_norm_scale"], eps)
            read = self._node(gates, "attn.act_in", i, read)
            parts = self._linear(layer, "qkv", read).chunk(3, dim=-1)
            q, k, v = (
                self._node(gates, f"attn.{name}", i, part)
                .view(batch, length, work.num_heads, work.d_head)
                .transpose(1, 2)
                for name, part in zip("qkv", parts, strict=True)
            )
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=layer["mask"])
            mixed = mixed.transpose(1, 2).reshape(batch, length, -1)
            delta = self._linear(layer, "attn_out", mixed)
            x = x + self._node(gates, "attn.resid_delta", i, delta)
            read = F.rms_norm(x, width, layer["mlp_norm_scale"], eps)
            read = self._node(gates, "mlp.act_in", i, read)
            hidden = F.gelu(self._linear(layer, "mlp_in", read))
            hidden = self._node(gates, "mlp.post_act", i, hidden)
            delta = self._linear(layer, "mlp_out", hidden)
            x = x + self._node(gates, "mlp.resid_delta", i, delta)
        x = F.rms_norm(x[:, -1], width, self.shared["final_norm_scale"], eps)
        return x @ self.shared["unembed"] + self.shared["bigram"][tokens[:, -1]]

    def differences(self, tokens: torch.Tensor, gates: Gates) -> torch.Tensor:
        """Differences `[B, 2]` of the two candidates' logits, from tokens `[B, 2, T]`."""
        logits = self(tokens.flatten(0, 1), gates)[:, self.arrays.answers]
        return (logits[:, 0] - logits[:, 1]).view(-1, 2)

    def batches(self) -> list[torch.Tensor]:
        """The validation set in batches."""
        tokens = torch.from_numpy(self.arrays.validation).long().to(self.device)
        return list(tokens.split(self.workload.pairs))

    def gates_at(self, k: int) -> Gates:
        """Opens the first k nodes of the ranking."""
        gates, start = {}, 0
        for site in SITES:
            shape = (self.workload.num_layers, self.workload.width(site))
            stop = start + shape[0] * shape[1]
            opened = (self.arrays.ranks[start:stop] < k).astype(np.float32).reshape(shape)
            gates[site] = torch.from_numpy(opened).to(self.device)
            start = stop
        return gates

    def initial_tau(self, seed: int = 0) -> dict[str, torch.Tensor]:
        """Mask parameters: N(0.1, 0.01), which leaves nearly all gates open."""
        rng = np.random.default_rng(seed)
        shapes = {site: fill.shape for site, fill in self.arrays.fills.items()}
        return {
            site: torch.from_numpy(rng.normal(0.1, 0.01, shape).astype(np.float32))
            .to(self.device)
            .requires_grad_()
            for site, shape in shapes.items()
        }

    def pruning_loss(self, tau: Mapping[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
        """Task loss plus k_coef times the number of open nodes, in nats."""
        gates = {site: Heaviside.apply(t) for site, t in tau.items()}
        task = binary_loss(self.differences(tokens, gates))
        opened = torch.cat([gate.flatten() for gate in gates.values()]).sum()
        return task + K_COEF_TIMES_NODES / self.workload.num_nodes * opened


def binary_loss(differences: torch.Tensor) -> torch.Tensor:
    """Mean loss in nats, from differences `[..., 2]`."""
    return (F.softplus(-differences[..., 0]) + F.softplus(differences[..., 1])).mean() / 2


def took(run: Callable[[], Any], device: str) -> Timed:
    """What `--repeats` calls take after a warm-up."""
    return timed(run, lambda _: torch.cuda.synchronize() if device == "cuda" else None)


def time_step(bench: Model) -> list[dict[str, Any]]:
    """Training steps of one job."""
    tau = bench.initial_tau()
    leaves = list(tau.values())
    count = sum(leaf.numel() for leaf in leaves)
    optimizer = torch.optim.AdamW(
        leaves, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=1e-3, fused=True
    )
    tokens = torch.from_numpy(bench.arrays.train).long().to(bench.device)
    steps, total, taken = 4, 10_000, 0

    def advance() -> None:
        nonlocal taken
        for _ in range(steps):
            index = torch.randint(len(tokens), (bench.workload.pairs,), device=bench.device)
            optimizer.zero_grad(set_to_none=True)
            bench.pruning_loss(tau, tokens[index]).backward()
            torch.nn.utils.clip_grad_norm_(leaves, count**0.5)
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - taken / total)
            optimizer.step()
            with torch.no_grad():
                for leaf in leaves:
                    leaf.clamp_(-1, 1)
            taken += 1

    found = took(advance, bench.device).per(steps)
    return [measured_line(found, measurement="step", steps_per_call=steps)]


def time_select(bench: Model) -> list[dict[str, Any]]:
    """A plain bisection's forward passes."""
    batches = bench.batches()

    @torch.no_grad()
    def select() -> None:
        low, high = 0, bench.workload.num_nodes
        for _ in range(PROBES):
            middle = (low + high) // 2
            gates = bench.gates_at(middle)
            values = torch.cat([bench.differences(tokens, gates) for tokens in batches])
            if float(binary_loss(values)) <= 0.15:
                high = middle
            else:
                low = middle

    found = took(select, bench.device)
    both = (("select", found), ("probe", found.per(PROBES)))
    return [measured_line(t, measurement=name, probes=PROBES) for name, t in both]


def time_calibrate(bench: Model) -> list[dict[str, Any]]:
    """Scale and shift by L-BFGS, with the model in the closure and on cached differences."""
    batches, gates = bench.batches(), bench.gates_at(int(LABELLED_BY * bench.workload.num_nodes))
    evaluations = 0

    @torch.no_grad()
    def forward() -> torch.Tensor:
        return torch.cat([bench.differences(tokens, gates) for tokens in batches])

    def fit(differences: Callable[[], torch.Tensor]) -> None:
        nonlocal evaluations
        theta = torch.zeros(2, device=bench.device, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [theta], max_iter=STEPS, tolerance_grad=0.0, tolerance_change=0.0
        )
        evaluations = 0

        def closure() -> torch.Tensor:
            nonlocal evaluations
            evaluations += 1
            optimizer.zero_grad()
            loss = binary_loss(theta[0].exp() * differences() + theta[1])
            loss.backward()
            return loss

        optimizer.step(closure)

    def fit_cached() -> None:
        values = forward()
        fit(lambda: values)

    lines = []
    for name, run in (("calibrate", lambda: fit(forward)), ("calibrate_cached", fit_cached)):
        found = took(run, bench.device)
        lines.append(measured_line(found, measurement=name, evaluations=evaluations))
    return lines


_MEASURE = {"step": time_step, "select": time_select, "calibrate": time_calibrate}


def decided(bench: Model, tau: Mapping[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Which pairs of tokens `[B, 2, T]` AbsTopK cuts alike whatever the rounding: bool `[B]`.

    Where the k-th and the next magnitude agree to 1e-6 of themselves, rounding decides which one
    stays, and the function jumps: there two correct programs may differ. The choice is made on
    PyTorch's activations alone, before anything is compared.
    """
    bench.gaps = []
    with torch.no_grad():
        bench(tokens.flatten(0, 1), {site: (t > 0).float() for site, t in tau.items()})
    gaps, bench.gaps = bench.gaps, None
    apart = torch.ones(tokens.shape[:2]) if not gaps else torch.stack(gaps).amin(0).view(-1, 2)
    return apart.amin(-1) > 1e-6


def check(name: str, abs_top_k: bool) -> dict[str, Any]:
    """Loss and mask gradient of one batch beside circuitjax's, from the same arrays.

    Raises:
      ValueError: they differ by more than 1e-4 (the gradient relative to its largest entry).
    """
    workload = WORKLOADS[name]
    arrays = draw(workload)
    bench = Model(workload, arrays, abs_top_k, "cpu")
    tau = bench.initial_tau()
    with torch.no_grad():  # a third of the gates closed, so that the fills matter
        for leaf in tau.values():
            leaf.copy_(torch.where(torch.arange(leaf.numel()).view_as(leaf) % 3 == 0, -leaf, leaf))
    batch = torch.from_numpy(arrays.train[: workload.pairs]).long()
    batch = batch[decided(bench, tau, batch)]
    if not len(batch):
        raise ValueError(f"no pair of workload {name} is free of near ties: nothing to compare")
    loss = bench.pruning_loss(tau, batch)
    loss.backward()
    values = {site: t.detach().numpy() for site, t in tau.items()}
    wanted, slopes = reference_gradient(workload, arrays, abs_top_k, values, batch.int().numpy())
    size = max(float(np.max(abs(slope))) for slope in slopes.values())
    gradients = {site: t.grad.numpy() for site, t in tau.items() if t.grad is not None}
    gradient_apart = max(float(np.max(abs(slopes[s] - g))) for s, g in gradients.items()) / size
    loss_apart = abs(loss.item() - wanted)
    result = {"loss": loss.item(), "loss_apart": loss_apart, "gradient_apart": gradient_apart}
    if not (loss_apart < 1e-4 and gradient_apart < 1e-4):
        raise ValueError(f"PyTorch and circuitjax differ by more than 1e-4: {result}")
    return {"check": name, "abs_top_k": abs_top_k, "pairs": len(batch), **result}


def _device_memory(device: str) -> float | None:
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    asked = chosen(tuple(_MEASURE), _MEASUREMENTS.value)
    torch.set_num_threads(cores())  # PyTorch itself would start one for every core of the machine
    device = _DEVICE.value or ("cuda" if torch.cuda.is_available() else "cpu")
    about = {
        "framework": "torch",
        "version": torch.__version__,
        "backend": device,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "dtype": "float32",
        "freed_memory_kept": keep_freed_memory(),
        "threads": torch.get_num_threads(),
        "matmul": "onednn" if _ONEDNN.value else "default",
        "memory_before_mib": peak_memory(),
    }
    for name, abs_top_k in asked:
        if _CHECK.value:
            print(json.dumps(check(name, abs_top_k)), flush=True)
            continue
        workload = WORKLOADS[name]
        bench = Model(workload, draw(workload), abs_top_k, device)
        which = {"workload": name, "abs_top_k": "on" if abs_top_k else "off"}
        for measurement in _MEASUREMENTS.value:
            for line in _MEASURE[measurement](bench):
                print_line(_device_memory(device), **about, **which, **line)
    tell_next(LINES, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
