"""Compile a matrix of models, schemes and devices, on one machine or many."""

VERBS = ("run", "status", "logs", "cancel", "fetch")
