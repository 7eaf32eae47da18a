"""The RPC services of identity, one per file."""
