"""Floor 2: a frozen model under gates, one module for each grain.

    nodes.py     gates on single channels and neurons
    weights.py   gates on single nonzero weights
    edges.py     gates on residual edges, writer -> reader

All three follow one protocol, `protocol.GatedModel`; nothing above this floor asks which grain it has.
"""
