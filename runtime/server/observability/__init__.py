"""What is told of the server's work: metrics, the log, and what belongs to one request."""
