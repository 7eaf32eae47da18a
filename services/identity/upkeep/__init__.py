"""What the identity service does by itself as time goes by, a file per loop."""
