"""Simple, varied and always correct Python snippets, made from a seed.

A document is a small script, function or class of some 30 to 150 tokens on one or two themes. Each
theme teaches one regularity of the language (a quotation mark closes with its like, a set is added
to, an `elif` branch is followed by `else`, ...) in many surroundings, so that a small model can
learn the rule, and a circuit that carries it out can be looked for. `THEMES` lists them with their
weights.
"""

from circuitjax.pretrain.idioms.documents import THEMES, documents, generate, generate_with_theme

__all__ = ["THEMES", "documents", "generate", "generate_with_theme"]
