"""Sensors: gate a pipeline on a job that somebody else started."""
