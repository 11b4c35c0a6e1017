"""circuitjax: find, prove and show the circuits inside transformers."""
