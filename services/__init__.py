"""The services: each its own process, database and log; they know each other only through protos."""
