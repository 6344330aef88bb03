"""HTTP itself: uvicorn, connections and bodies with limits, and server-sent events."""
