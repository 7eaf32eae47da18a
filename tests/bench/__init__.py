"""What Rapport does per second, beside the bare resource and beside another library."""
