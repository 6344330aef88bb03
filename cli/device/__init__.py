"""Let a device be measured on from elsewhere, for `mvlm tune --rpc`."""

VERBS = ("serve", "tracker", "list")
