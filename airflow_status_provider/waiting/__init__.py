"""How to wait: asyncio, no Airflow. ``wait.wait`` is the one way in."""
