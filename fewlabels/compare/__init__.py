"""Does pretraining help on these images? Arms by label budgets by pairs, and what they prove."""
