"""Triggers: thin. Build the hook, wait, yield one event, return at once."""
