"""What people did, from every source: recorded once, durably, before the answer."""
