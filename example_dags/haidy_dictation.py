"""Haidy: transcribe a dictation. The transcript is health data: it stands in XCom, and in no log."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import dag, task

from airflow_status_provider.operators.haidy import HaidyTranscribeOperator

SAMPLES = Path(__file__).parent / "samples"


@dag(schedule=None, catchup=False, tags=["example", "haidy"])
def haidy_dictation():
    transcribe = HaidyTranscribeOperator(
        task_id="transcribe",
        audio_files=[str(SAMPLES / "dictation.wav")],
        language="de-CH",
        poll_interval=2,
        timeout=3600,
    )

    @task
    def when(transcript: dict) -> str:
        return transcript["completed_at"]

    when(transcribe.output)


haidy_dictation()
