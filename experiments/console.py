"""The console command: `circuitjax NAME --flags` is `python -m experiments.NAME --flags`.

circuitjax                 all binaries, with a line each
circuitjax prune --help    a binary's flags
circuitjax cache           where compiled programs are kept, and how large they are; --clear
circuitjax --version
"""

import ast
import difflib
import importlib.metadata
import os
import pathlib
import runpy
import sys
from collections.abc import Sequence

__all__ = ["binaries", "main"]

_FOLDER = pathlib.Path(__file__).parent
_GROUPS = {  # what is not named here measures speed
    "find a circuit, look at it, test it": ("prune", "view", "audit", "export"),
    "many at once": ("suite", "figures", "audit_table", "tune", "consensus", "uniqueness"),
    "models": ("import_model", "fetch_model", "means", "corpus", "pretrain", "package_model"),
    "how good the methods are": ("ground_truth", "ranking_truth", "edge_rankings", "error_rates"),
    "does it fit": ("device_memory",),
}


def binaries() -> dict[str, str]:
    """{name: its first line} of every binary, in order; nothing is imported for it."""
    found = {}
    for path in sorted(_FOLDER.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "\n    run_main(main)" in text:
            found[path.stem] = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    return found


def _overview() -> str:
    known = binaries()
    wide = max(map(len, known)) + 2
    lines = ["usage: circuitjax NAME [--flags]      circuitjax NAME --help for a binary's flags"]
    named = {name for names in _GROUPS.values() for name in names}
    groups = {**_GROUPS, "how fast it is": tuple(name for name in known if name not in named)}
    for title, names in groups.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:{wide}s}{_cut(known[name], 96 - wide)}" for name in names]
    lines += ["", "what is kept between runs:"]
    lines.append(f"  {'cache':{wide}s}Where compiled programs are kept, how large; --clear them.")
    lines += [
        "",
        "exit codes: 0 done, 1 the computation, memory or disk gave out, 2 bad input,",
        "130 stopped by Ctrl-C, 143 by SIGTERM, 141 what read the output is gone",
    ]
    return "\n".join(lines)


def _cut(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."


def _cache(arguments: Sequence[str]) -> int:
    from circuitjax.core.host import cache_directory, cache_size, clear_cache

    if set(arguments) & {"-h", "--help", "--helpfull"}:
        print(
            "circuitjax cache           says where compiled programs are kept, and how large they are"
        )
        print("circuitjax cache --clear   removes them; they are made again when they are needed")
        return 0
    if unknown := [argument for argument in arguments if argument != "--clear"]:
        print(f"error: circuitjax cache knows --clear alone, not {unknown[0]!r}", file=sys.stderr)
        return 2
    count, size = cache_size()
    print(f"{cache_directory()}: {count} files, {size / 1e6:.1f} MB of compiled programs")
    if arguments:
        clear_cache()
        print("cleared: the next run compiles its programs anew")
    elif count:
        print("next: circuitjax cache --clear removes them; they are made again when needed")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a binary, which ends the process with its own exit code.

    Args:
      argv: arguments behind the command's name; None means the process's own.

    Returns:
      The exit code, where no binary ran.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    name, *rest = arguments
    if name == "--version":
        print(f"circuitjax {importlib.metadata.version('circuitjax')}")
        return 0
    if name == "cache":
        return _cache(rest)
    known = binaries()
    if name.replace("-", "_") not in known:
        near = difflib.get_close_matches(name, [*known, "cache"], n=3) or ["prune"]
        print(
            f"error: no binary {name[:80]!r}: did you mean {' or '.join(near)}? "
            "`circuitjax` lists them all",
            file=sys.stderr,
        )
        return 2
    sys.argv = [f"circuitjax {name}", *rest]
    try:
        runpy.run_module(
            f"experiments.{name.replace('-', '_')}", run_name="__main__", alter_sys=True
        )
    except KeyboardInterrupt:  # while it imports; later it has its own word
        print("stopped by Ctrl-C before it began", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
