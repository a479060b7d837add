"""Operators: start a job, wait for it, push its result to XCom."""
