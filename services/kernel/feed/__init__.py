"""The feed: the log on JetStream, out by relays and in by readers."""
