"""What the verbs share: options, failures, the terminal, and the way to an artifact."""
