"""INT8: which layers compute in eight bits, with what ranges, and what that costs."""
