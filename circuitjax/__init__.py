"""circuitjax: find, prove and show the circuits inside transformers.

import circuitjax as cj

model = cj.load_model("tiny-python")
task = cj.tasks.get("single_double_quote")
circuit = cj.find_circuit(model, task)
circuit.save("my_circuit", model)
"""
