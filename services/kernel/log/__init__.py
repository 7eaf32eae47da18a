"""The log: append, read, follow, and what it stands on in PostgreSQL."""
