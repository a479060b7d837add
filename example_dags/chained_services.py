"""Chains: transcribe, then structure; process documents, then see them pushed.

A push to a gateway is announced on the socket only, and what was announced before nobody listened cannot be
seen: so ``pushed`` starts to wait beside ``processed``, not after it.
"""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import dag, task, task_group

from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.operators.haidy import HaidyStructureOperator, HaidyTranscribeOperator
from airflow_status_provider.sensors.areal import ArealDocPushSensor, ArealSessionSensor

SAMPLES = Path(__file__).parent / "samples"


@dag(schedule=None, catchup=False, tags=["example", "haidy", "areal"])
def chained_services():
    @task_group
    def medical():
        transcribe = HaidyTranscribeOperator(
            task_id="transcribe", audio_files=str(SAMPLES / "dictation.wav"), language="de", poll_interval=2
        )

        @task
        def as_record(transcript: dict) -> dict:
            return {"type": "plain_text", "text": str(transcript["result"])}

        HaidyStructureOperator(
            task_id="structure", records=as_record(transcribe.output), output_format="fhir", poll_interval=2
        )

    @task_group
    def mortgage():
        @task(multiple_outputs=True)
        def upload() -> dict[str, str]:
            file = SAMPLES / "closing_disclosure_1.pdf"
            hook = ArealHook()
            slots = hook.presign([file.name])
            document_id = hook.start(slots, [file])[0]
            return {"upload_session_id": slots.upload_session_id, "document_id": document_id}

        uploaded = upload()
        ArealSessionSensor(task_id="processed", upload_session_id=uploaded["upload_session_id"], timeout=1800)
        ArealDocPushSensor(task_id="pushed", document_id=uploaded["document_id"], timeout=1800)

    medical()
    mortgage()


chained_services()
