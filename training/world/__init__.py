"""The world the bundled model knows: scenes of coloured shapes, their images, questions, scoring.

Nothing here needs torch, so that a compiled model can be scored with the same questions.
"""
