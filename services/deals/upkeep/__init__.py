"""What the deals service does by itself as time goes by, a file per loop."""
