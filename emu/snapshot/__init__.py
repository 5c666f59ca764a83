"""A run saved at one point and resumed many times."""
