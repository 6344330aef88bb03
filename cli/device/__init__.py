"""Serve a device to `mvlm tune --rpc`, and list the devices."""

VERBS = ("serve", "tracker", "list")
