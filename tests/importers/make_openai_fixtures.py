"""Makes a checkpoint that uses what PyTorch's format allows, and the same tensors in plain NumPy.

    python tests/importers/make_openai_fixtures.py [--out=tests/importers/openai]

Writes odd.pt (views, slices, parameters, shared storages, 16-bit numbers; pickle protocol 2), odd4.pt
(the same by protocol 4) and odd.npz. Needs PyTorch; the tests that read them do not. The other
folders hold checkpoints that came with a record of what the authors' implementation computes; see
tests/data/make_openai_fixtures.py.
"""

import argparse
import collections
import pathlib

import numpy as np
import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/importers/openai"))
    options = parser.parse_args()
    torch.manual_seed(0)
    block = torch.randn(6, 4)
    state = collections.OrderedDict(
        {
            "plain": torch.randn(3, 2),
            "transposed": torch.randn(5, 3).T,
            "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
            "rows": block[2:5],
            "columns": block[:, 1:3],
            "every second": block[::2],
            "whole": block,
            "parameter": torch.nn.Parameter(torch.randn(4)),
            "frozen": torch.nn.Parameter(torch.randn(4), requires_grad=False),
            "one number": torch.tensor(2.5),
            "half": torch.randn(3, 3).half(),
            "brain": torch.randn(3, 3).bfloat16().T,
        }
    )
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    for name, protocol in (("odd", 2), ("odd4", 4)):
        torch.save(state, options.out / f"{name}.pt", pickle_protocol=protocol)
    arrays = {name: tensor.detach().float().numpy() for name, tensor in state.items()}
    np.savez_compressed(options.out / "odd.npz", **arrays)


if __name__ == "__main__":
    main()
