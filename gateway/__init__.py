"""The one door: gRPC proxy, HTTP edge, authentication, limits and Customer 360."""
