"""The page *Remote jobs* in Airflow's own web interface."""
