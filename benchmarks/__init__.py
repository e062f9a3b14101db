"""How fast and how small this implementation is, against the same scores computed as the released code does."""
