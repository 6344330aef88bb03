"""The models that are served: loaded from the start or on demand, each with its engine."""
