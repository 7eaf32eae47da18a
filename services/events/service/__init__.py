"""What the events service answers, a file per RPC service."""
