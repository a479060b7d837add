"""Watchers: what happens in a service, as events of an asset that DAGs are scheduled on."""
