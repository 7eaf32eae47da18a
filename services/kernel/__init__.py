"""The shared kernel: the event-sourcing machine every service is, with no business word in it."""
