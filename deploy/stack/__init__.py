"""The development stack: PostgreSQL, NATS and Rapport's processes as supervised children."""
