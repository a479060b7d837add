"""A hook wraps an Airflow connection: where the service is, how to sign in, and the service's verbs."""
