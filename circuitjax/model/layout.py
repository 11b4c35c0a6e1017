"""Where tokens stand when a row holds several prompts, some of which begin like another.

What two prompts begin with is computed alike in a causal model: the row holds it once, in one of the
two, and of the other only what comes after it.
"""

import flax.struct
import jax

__all__ = ["Layout"]


@flax.struct.dataclass
class Layout:
    """Of the tokens of B rows of T slots, all int32 `[B, T]`.

    Attributes:
      places: a token's position within its prompt.
      prompt: the number of its prompt; -1 in slots that hold none.
      base: the number of the prompt that its own begins like; where there is none, its own.
      begin: how many first tokens of `base` its prompt takes for its own.
    """

    places: jax.Array
    prompt: jax.Array
    base: jax.Array
    begin: jax.Array

    def visible(self, causal: bool) -> jax.Array:
        """bool `[B, T, T]`: whether the token in a slot (axis 1) sees the one in another (axis 2)."""
        key_prompt, key_place = self.prompt[:, None, :], self.places[:, None, :]
        seen = key_prompt == self.prompt[:, :, None]  # empty slots see each other: never nothing
        begun = (key_prompt == self.base[:, :, None]) & (key_place < self.begin[:, :, None])
        seen = seen | begun
        return seen & (key_place <= self.places[:, :, None]) if causal else seen
