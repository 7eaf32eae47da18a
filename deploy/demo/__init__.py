"""The demo: loads what it is given, tells one person's story, and checks every answer it shows."""
