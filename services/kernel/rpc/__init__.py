"""gRPC: how a method is served, how a peer is asked, and who asks."""
