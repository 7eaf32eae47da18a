"""The services: own process, own database, own log; they meet only through protos."""
