"""A tokenizer of 2048 tokens, trained on the spot on what a model of the tasks is trained on."""

import pytest

from circuitjax.pretrain import bpe, idioms
from circuitjax.tasks.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_json(bpe.train(idioms.documents(0, 12_000)).to_str())
