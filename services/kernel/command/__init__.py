"""Commands: pure deciders, and the group commit that runs them."""
