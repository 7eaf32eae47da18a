"""Views: projections of feeds, policies, and rebuilds beside the live one."""
