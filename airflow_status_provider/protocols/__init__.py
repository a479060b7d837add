"""What each service says, as values: no asyncio, no Airflow, no network, no clock."""
