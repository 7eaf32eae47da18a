"""What deals answer, a file per service."""
