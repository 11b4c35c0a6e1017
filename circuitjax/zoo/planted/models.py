"""Seven small models whose circuit is known to the last node, weight and residual edge.

Each builder is a function of a seed, which deals channels, heads, neurons, layers and the
architecture (norm, biases, sinks, activation). Positives are completed by token 1, negatives by 2.
"""

import functools
from collections.abc import Callable

import numpy as np

from circuitjax.zoo.planted.draft import END, LENGTH, Draft, Filler, Pair, Planted

__all__ = ["SCORE", "SLOTS", "features", "one_decides", "place_channel", "planted_models"]

PLUS, MINUS, MARK, LEFT, RIGHT = (3, 4), (5, 6), 7, (8, 9), (10, 11)
SLOTS = LENGTH - 2  # between the first filler and `=`; slot i stands at position i + 1
SCORE = 12.0

Builder = Callable[[int], Planted]


def _pick(rng: np.random.Generator, tokens: tuple[int, ...]) -> int:
    return int(rng.choice(tokens))


def features(draft: Draft) -> int:
    """A channel on which tokens of two classes have +1 and -1."""
    channel = draft.channel()
    draft.embed(PLUS, channel, 1.0)
    draft.embed(MINUS, channel, -1.0)
    return channel


def place_channel(draft: Draft, position: int) -> int:
    """A channel that is 1 at one position, and 0 on average."""
    channel = draft.channel()
    places = draft.params["positions"]
    places[:, channel] = -1 / (LENGTH - 1)
    places[position, channel] = 1.0
    return channel


def one_decides(rng: np.random.Generator, filler: Filler, slot: int | None, others: bool) -> Pair:
    """Prompts that differ in one token; other classed tokens stand about it if `others`."""
    slot = int(rng.integers(SLOTS)) if slot is None else slot
    row = [filler() for _ in range(SLOTS)]
    if others:
        row = [_pick(rng, PLUS + MINUS) if rng.random() < 0.7 else token for token in row]
    positive, negative = list(row), list(row)
    positive[slot], negative[slot] = _pick(rng, PLUS), _pick(rng, MINUS)
    return positive, negative


def neuron_copy(seed: int) -> Planted:
    """A token's class through one neuron, then to the end by a head that looks everywhere."""
    draft = Draft("neuron_copy", seed, 2)
    first, second = draft.layers(2)
    feature, found, head = features(draft), draft.channel(), draft.head()
    draft.compute(first, feature, found, read=2.0, write=0.75)
    draft.move(second, head, [found], draft.answer, scale=5.0)
    edges = [
        f"embed->m{first}<in>",
        f"m{first}->a{second}.h{head}<v>",
        f"a{second}.h{head}->logits",
    ]
    return draft.finish(edges, lambda rng, filler: one_decides(rng, filler, None, False))


def position_head(seed: int) -> Planted:
    """One head copies the class of the token at one place, which it finds by position."""
    draft = Draft("position_head", seed, 1)
    (layer,), head, slot = draft.layers(1), draft.head(), int(draft.rng.integers(1, SLOTS))
    feature, place = features(draft), place_channel(draft, slot + 1)
    draft.attend(layer, head, draft.at_end, place, SCORE)
    draft.move(layer, head, [feature], draft.answer, scale=1.0)
    edges = [f"embed->a{layer}.h{head}<v>", f"a{layer}.h{head}->logits"]
    return draft.finish(edges, lambda rng, filler: one_decides(rng, filler, slot, True))


def two_hop(seed: int) -> Planted:
    """A head finds the one classed token by what it is; two neurons turn its class into the answer."""
    draft = Draft("two_hop", seed, 1)
    (layer,), head = draft.layers(1), draft.head()
    later = int(draft.rng.integers(layer, draft.config.num_layers))
    feature, classed, moved = features(draft), draft.channel(), draft.channel()
    draft.embed(PLUS + MINUS, classed, 1.0)
    draft.attend(layer, head, draft.at_end, classed, SCORE)
    draft.move(layer, head, [feature], moved, scale=1.5)
    draft.compute(later, moved, draft.answer, read=1.5, write=1.0)
    draft.compute(later, moved, draft.answer, read=-1.5, write=-1.0)
    edges = [
        f"embed->a{layer}.h{head}<v>",
        f"a{layer}.h{head}->m{later}<in>",
        f"m{later}->logits",
    ]
    return draft.finish(edges, lambda rng, filler: one_decides(rng, filler, None, False))


def conjunction(seed: int) -> Planted:
    """Two neurons find a token each; a third fires at the end only if both were found."""
    draft = Draft("conjunction", seed, 2)
    first, second = draft.layers(2)
    head, both = draft.head(), draft.channel()
    found = []
    for tokens in (LEFT, RIGHT):
        seen = draft.channel()
        draft.embed(tokens, seen, 1.0)
        found.append(draft.channel())
        draft.compute(first, seen, found[-1], read=2.0, write=0.75)
    draft.move(second, head, found, both, scale=8.0)
    one = 1.5 * 8.0 / draft.dilution
    draft.embed([END], both, -1.3 * one)  # the threshold: `=` stands at the end
    draft.compute(second, both, draft.answer, read=1.5, write=1.0)

    def sample(rng: np.random.Generator, filler: Filler) -> Pair:
        positive = [filler() for _ in range(SLOTS)]
        places = rng.choice(SLOTS, 2, replace=False)
        positive[places[0]], positive[places[1]] = _pick(rng, LEFT), _pick(rng, RIGHT)
        negative = list(positive)
        negative[rng.choice(places)] = filler()
        return positive, negative

    edges = [
        f"embed->m{first}<in>",
        f"m{first}->a{second}.h{head}<v>",
        f"a{second}.h{head}->m{second}<in>",
        f"m{second}->logits",
    ]
    return draft.finish(edges, sample)


def value_composition(seed: int) -> Planted:
    """A head moves a class from one place to another, a later one from there to the end."""
    draft = Draft("value_composition", seed, 2)
    first, second = draft.layers(2)
    one, other = draft.head(), draft.head()
    near, far = sorted(int(i) for i in draft.rng.choice(np.arange(1, SLOTS), 2, replace=False))
    feature, moved = features(draft), draft.channel()
    source, target = place_channel(draft, near + 1), place_channel(draft, far + 1)
    draft.attend(first, one, target, source, SCORE)
    draft.move(first, one, [feature], moved, scale=1.5)
    draft.attend(second, other, draft.at_end, target, SCORE)
    draft.move(second, other, [moved], draft.answer, scale=1.0)
    edges = [
        f"embed->a{first}.h{one}<v>",
        f"a{first}.h{one}->a{second}.h{other}<v>",
        f"a{second}.h{other}->logits",
    ]
    return draft.finish(edges, lambda rng, filler: one_decides(rng, filler, near, True))


def key_composition(seed: int) -> Planted:
    """A head marks the place after the mark, a later one copies the class of the marked token.

    Both prompts hold a token of either class; only the mark moves. The first head looks one place
    back: q and k are the position on a circle, q turned by one step.
    """
    draft = Draft("key_composition", seed, 2)
    first, second = draft.layers(2)
    one, other = draft.head(), draft.head()
    feature, mark, marked = features(draft), draft.channel(), draft.channel()
    circle = draft.channel(), draft.channel()
    angles, step = np.arange(LENGTH) * 2 * np.pi / LENGTH, 2 * np.pi / LENGTH
    for channel, values in zip(circle, (np.cos(angles), np.sin(angles)), strict=True):
        draft.params["positions"][:, channel] = values
    turn = np.array([[np.cos(step), -np.sin(step)], [np.sin(step), np.cos(step)]])
    places = draft.rng.permutation(draft.config.d_head)[:2]
    for i, source in enumerate(circle):
        node = f"{first}.attn.act_in.{source}"
        for j, c in enumerate(places):
            draft.connect(node, f"{first}.attn.q.h{one}.c{c}", 8.0 * float(turn[i, j]))
        draft.connect(node, f"{first}.attn.k.h{one}.c{places[i]}", 8.0)
    draft.embed([MARK], mark, 1.0)
    draft.move(first, one, [mark], marked, scale=1.5)
    draft.attend(second, other, draft.at_end, marked, SCORE)
    draft.move(second, other, [feature], draft.answer, scale=1.0)

    def sample(rng: np.random.Generator, filler: Filler) -> Pair:
        row = [filler() for _ in range(SLOTS)]
        i, j = ((1, 3), (1, 5), (3, 5), (2, 4), (2, 5), (1, 4))[int(rng.integers(6))]
        if rng.random() < 0.5:
            i, j = j, i
        row[i], row[j] = _pick(rng, PLUS), _pick(rng, MINUS)
        positive, negative = list(row), list(row)
        positive[i - 1] = negative[j - 1] = MARK
        return positive, negative

    edges = [
        f"embed->a{first}.h{one}<v>",
        f"a{first}.h{one}->a{second}.h{other}<k>",
        f"a{second}.h{other}->logits",
    ]
    return draft.finish(edges, sample)


def decoys(seed: int) -> Planted:
    """`position_head` beside parts that look like it.

    One head has the same pattern, reads a copy of the class and writes it where nothing reads; it
    also reads what says nothing of the class and writes that to the answer. A neuron reads the
    answer and writes it where nothing reads.
    """
    draft = Draft("decoys", seed, 1)
    (layer,), head, slot = draft.layers(1), draft.head(), int(draft.rng.integers(1, SLOTS))
    feature, place = features(draft), place_channel(draft, slot + 1)
    draft.attend(layer, head, draft.at_end, place, SCORE)
    draft.move(layer, head, [feature], draft.answer, scale=1.0)
    true = dict(draft.weights)
    copy, unread = features(draft), draft.channel()
    within = draft.channel()
    for tokens in (PLUS, MINUS):
        draft.embed(tokens[:1], within, 1.0)
        draft.embed(tokens[1:], within, -1.0)
    twin = 1 - head
    draft.attend(layer, twin, draft.at_end, place, SCORE)
    for channel, source, target, scale in ((1, copy, unread, 1.0), (2, within, draft.answer, 0.1)):
        v = f"{layer}.attn.v.h{twin}.c{channel}"
        draft.connect(f"{layer}.attn.act_in.{source}", v, 1.0)
        draft.connect(v, f"{layer}.attn.resid_delta.{target}", scale)
    draft.compute(draft.config.num_layers - 1, draft.answer, unread, read=1.0, write=1.0)
    edges = [f"embed->a{layer}.h{head}<v>", f"a{layer}.h{head}->logits"]
    return draft.finish(
        edges, lambda rng, filler: one_decides(rng, filler, slot, True), true_weights=true
    )


def planted_models() -> tuple[Builder, ...]:
    """Every builder: a function of a seed; called twice with one it builds once."""
    return _BUILDERS


_BUILDERS = tuple(
    functools.lru_cache(maxsize=8)(build)
    for build in (
        neuron_copy,
        position_head,
        two_hop,
        conjunction,
        value_composition,
        key_composition,
        decoys,
    )
)
