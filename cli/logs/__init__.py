"""List, show, merge and prune tuning logs."""

VERBS = ("list", "show", "merge", "prune")
