"""A service described as data: requests, pointers and words instead of code."""
