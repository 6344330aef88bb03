"""From a checkpoint to an artifact: targets, the pass pipeline, the artifact writer."""
