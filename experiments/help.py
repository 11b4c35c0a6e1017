"""What `--help` of a binary shows: one screen of the flags that most people need, by what they are for.

`--helpfull` shows every flag with its whole text, and the rest of the binary's description. The title
that a flag stands under is found by its name: a name means the same to every binary.
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import flags

__all__ = ["GROUPS", "LONGEST", "MOST_LINES", "help_text", "own_flags", "wanted"]

#: Columns, and lines, of a screen.
LONGEST, MOST_LINES = 100, 48
_WIDE, _EXAMPLES = 28, 4  # columns of a flag, lines of example commands

#: {title: names of flags}, in the order in which they are shown.
GROUPS = {
    "what is asked": (
        *("task", "tasks", "list_tasks", "chat_template", "model", "models", "run", "circuit"),
        *("circuits", "suite", "suites", "audit", "audits", "from", "path", "recipe", "corpus"),
        *("tokenizer", "bos", "name", "planted", "programs", "start", "start_from_nodes"),
        *("compare", "groups", "function", "tuner", "workloads", "sizes", "measurements"),
        *("format", "config", "length"),
    ),
    "when it is done": (
        *("target_loss", "targets", "target_kl", "target_edges", "target_nodes", "confidence"),
        *("hold_under", "threshold"),
    ),
    "how it searches": (
        *("preset", "grain", "grains", "method", "methods", "ablation", "ablations", "ranking"),
        *("rankings", "gate", "minimise", "control", "loss", "units", "coarse", "train_under"),
        *(
            "warm_start",
            "sign",
            "attribute_to",
            "selection",
            "eliminate",
            "calibrate",
            "tie_qk",
            "node_gates",
        ),
        *("points", "program_grains", "program_ablations", "centre", "polish", "polish_at"),
        *("search", "abs_top_k", "dtype", "device", "onednn", "check"),
    ),
    "how much it does": (
        *("steps", "against", "rounds", "round_size", "num_seeds", "fresh_seeds", "num_jobs"),
        *("jobs", "num_circuits", "batch_size", "train_pairs", "validation_pairs", "test_pairs"),
        *("pairs", "search_pairs", "train_examples", "test_examples", "exhaustive", "random_sets"),
        *("trials", "tokens", "mean_tokens", "idiom_fraction", "code_megabytes", "idiom_megabytes"),
        *("layers", "nonzeros", "d_model", "chunk", "repeats", "ask_after", "processes", "shard"),
        *("mesh", "devices"),
        *("seed", "seeds", "model_seed", "model_seeds"),
    ),
    "settings of training": (
        *("k_coef", "lr", "wd", "inv_beta2", "lr_warmup_frac", "heaviside_temp", "kl_weight"),
        *("aim", "target_sparsity", "target_warmup_frac", "multiplier_lr"),
        *("init", "init_noise_bias", "init_noise_scale"),
    ),
    "what is written and shown": (
        *("out", "overwrite", "retry", "partial", "cache", "download_dir", "quiet"),
    ),
}
_OTHERS = "other flags"
# Of the flags of a search, those on the screen; a binary that has few shows all of them.
_OFTEN = frozenset(
    {
        *("target_loss", "target_kl", "target_edges", "target_nodes", "preset", "grain"),
        *(
            "ablation",
            "ranking",
            "train_under",
            "hold_under",
            "confidence",
            "steps",
            "num_seeds",
            "seed",
        ),
        *("train_pairs", "batch_size"),
    }
)
_SEARCH = "experiments.pruning_flags"
_SHORT = frozenset({"--help", "-help", "-h", "-?", "--helpshort", "-helpshort"})
_FULL = frozenset({"--helpfull", "-helpfull"})


def wanted(argv: Sequence[str]) -> str | None:
    """Which help a command line asks for: "short", "full", or None; the binary's name is its first."""
    given = list(argv[1:])
    given = given[: given.index("--")] if "--" in given else given
    if _FULL & set(given):
        return "full"
    return "short" if _SHORT & set(given) else None


def own_flags(module: str) -> dict[str, flags.Flag]:
    """{name: flag} of a binary, its own and those of the modules of `experiments` that it uses."""
    known = flags.FLAGS.flags_by_module_dict()
    mine = {sys.argv[0] if module == "__main__" else module}
    mine |= {name for name in known if name.partition(".")[0] == "experiments"}
    return {flag.name: flag for name in sorted(mine & set(known)) for flag in known[name]}


def help_text(name: str, doc: str, defined: dict[str, flags.Flag], *, full: bool = False) -> str:
    """The help of a binary.

    Args:
      name: of the binary, as it is called.
      doc: its module's docstring.
      defined: its flags, see `own_flags`.
      full: everything, or a screen.
    """
    search = {flag.name for flag in flags.FLAGS.flags_by_module_dict().get(_SEARCH, ())}
    seldom = search - _OFTEN | {n for n, flag in defined.items() if _is_alias(flag)}
    shown = {n: flag for n, flag in defined.items() if full or n not in seldom}
    lines = [doc.strip() if full else _head(doc), ""]
    for title, names in _grouped(shown):
        lines.append(f"{title}:")
        for one in names:
            lines += _explained(shown[one]) if full else [_line(shown[one])]
        lines += [""] if full else []
    if full:
        lines.append("--flagfile=FILE reads flags from a file, one a line.")
    else:
        left = len(defined) - len(shown)
        more = f"{left} more flags, and " if left else ""
        lines += ["", f"{name} --helpfull: {more}everything about each"]
    return "\n".join(lines)


def _grouped(shown: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    left = set(shown)
    for title, names in GROUPS.items():
        found = [name for name in names if name in left]
        left -= set(found)
        if found:
            yield title, found
    if left:
        yield _OTHERS, sorted(left)


def _head(doc: str) -> str:
    """The first paragraph of a docstring, and commands of its second."""
    first, *rest = doc.strip().split("\n\n")
    examples = [part.strip("\n") for part in rest if "python -m experiments." in part]
    shown = examples[0].splitlines()[:_EXAMPLES] if examples else []
    while shown and shown[-1].endswith("\\"):  # of a command that goes on
        shown.pop()
    return "\n\n".join([first, *(["\n".join(shown)] if shown else [])])


def _is_alias(flag: Any) -> bool:
    return (flag.help or "").startswith("Alias for ")


def _values(flag: Any) -> list[str]:
    return list(getattr(flag.parser, "enum_values", None) or ())


def _called(flag: Any) -> str:
    """A flag as one types it."""
    if flag.boolean:
        return f"--[no]{flag.name}" if flag.default else f"--{flag.name}"
    kind = flag.flag_type()
    known = {"int": "N", "float": "X"}
    what = "A,B" if "list" in kind else known.get(kind, flag.name.upper())
    chosen = f"--{flag.name}={'|'.join(_values(flag))}"
    return chosen if _values(flag) and len(chosen) <= _WIDE else f"--{flag.name}={what}"


def _text(flag: Any) -> str:
    """What it does, and its default."""
    text = " ".join((flag.help or "").split())
    text = text.replace(".; repeat this option to specify a list of values.", "; may be repeated.")
    if _values(flag):
        # The flags library puts the values first.
        text = text.partition(">: ")[2] or text
    if flag.default in (None, "", []) or flag.boolean or "default" in text.lower():
        return text
    default = ",".join(flag.default) if isinstance(flag.default, list) else str(flag.default)
    return f"{text.rstrip('.')}. Default: {default}."


def _line(flag: Any) -> str:
    """A flag in one line: its first sentence, and its values and its default if there is room."""
    head = f"  {_called(flag):{_WIDE}s}  "
    text, room = _text(flag), LONGEST - len(head)
    values = f"{'|'.join(_values(flag))}: " if _values(flag) and "|" not in head else ""
    first, default = text.split(". ")[0].rstrip("."), text.rpartition(" Default: ")[2]
    with_default = f"{first}. Default: {default}" if " Default: " in text else f"{first}."
    for told in (values + text, values + with_default, text, with_default, f"{first}."):
        if len(told) <= room:
            return head + told
    told = values + first if len(values) <= room // 2 else first
    return f"{head}{told[: room - 3].rpartition(' ')[0]}..."


def _explained(flag: Any) -> list[str]:
    """A flag with its whole text, and its values."""
    margin = " " * 6
    text = _text(flag)
    if _values(flag):
        text = f"{text} Of: {', '.join(_values(flag))}."
    wrapped = textwrap.wrap(text, LONGEST, initial_indent=margin, subsequent_indent=margin)
    return [f"  {_called(flag)}", *wrapped]
