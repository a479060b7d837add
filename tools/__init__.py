# SPDX-License-Identifier: Apache-2.0
"""What the project's own targets run: the demo, and a real Airflow for it and for the tests."""
