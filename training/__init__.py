"""Training of the bundled model: a tiny MobileVLM (V1) that answers questions about shapes.

`python -m mvlm.training` trains it from nothing; see `__main__` for the steps.
"""
