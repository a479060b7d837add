# SPDX-License-Identifier: Apache-2.0
"""Airflow operators, sensors and triggers that wait for jobs of Areal, Tagger, Organizer and Haidy."""

__version__ = "0.1.0"
