# SPDX-License-Identifier: Apache-2.0
"""All operators and sensors; ids of jobs that the test has started come with the run's conf."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG, task

from airflow_status_provider.operators.areal import (
    ArealCDBalancerOperator,
    ArealCopilotOperator,
    ArealProcessDocumentsOperator,
)
from airflow_status_provider.operators.haidy import HaidyStructureOperator, HaidyTranscribeOperator
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.areal import (
    ArealCDBalancerSensor,
    ArealCDPullSensor,
    ArealCDPushSensor,
    ArealCopilotSensor,
    ArealDocPushSensor,
    ArealDocumentSensor,
    ArealSessionSensor,
)
from airflow_status_provider.sensors.haidy import HaidyTaskSensor
from airflow_status_provider.sensors.organizer import OrganizerJobSensor, OrganizerUploadSensor
from airflow_status_provider.sensors.tagger import TaggerBatchSensor

FILE = __file__
ROWS = [
    {"title": "A", "file_path": "https://files.example.com/a.pdf"},
    {"title": "B", "file_path": "https://files.example.com/missing.pdf"},
]
RECORD = {"type": "plain_text", "text": "a note"}
DIALECTS = ("default", "observed")


def given(name: str) -> str:
    return "{{ dag_run.conf['" + name + "'] }}"


with DAG("operators", schedule=None, catchup=False, default_args={"timeout": 120, "poll_interval": 1}):
    ArealProcessDocumentsOperator(task_id="areal_process", files=[FILE, str(Path(FILE).parent / "plain.py")])
    ArealCDBalancerOperator(
        task_id="areal_balance", document_id_1=given("document_1"), document_id_2=given("document_2")
    )
    ArealCopilotOperator(
        task_id="areal_copilot", copilot_task_id=given("copilot_task"), upload_session_id=given("session")
    )
    TaggerBatchOperator.partial(task_id="tagger", documents=ROWS).expand(
        tagger_conn_id=[f"tagger_{name}" for name in DIALECTS]
    )
    OrganizerOperator.partial(task_id="organizer", input_dir="/srv/inbox").expand(
        organizer_conn_id=[f"organizer_{name}" for name in DIALECTS]
    )
    HaidyTranscribeOperator(task_id="haidy_transcribe", audio_files=FILE, language="de")
    HaidyStructureOperator(task_id="haidy_structure", records=RECORD, end_from_trigger=False)

with DAG("sensors", schedule=None, catchup=False, default_args={"timeout": 120, "poll_interval": 1}):
    ArealDocumentSensor(task_id="document", document_id=given("document"))
    ArealSessionSensor(task_id="session", upload_session_id=given("session"))
    ArealDocPushSensor(task_id="doc_push", document_id=given("doc_push"))
    ArealCDBalancerSensor(task_id="cd_balancer", request_id=given("cd_balancer"))
    ArealCDPullSensor(task_id="cd_pull", upload_session_id=given("cd_pull"))
    ArealCDPushSensor(task_id="cd_push", cdbalancer_request_id=given("cd_push"))
    ArealCopilotSensor(task_id="copilot", copilot_task_id=given("copilot"), upload_session_id=given("scope"))
    TaggerBatchSensor(task_id="tagger", job_id=given("tagger"))
    TaggerBatchSensor(task_id="tagger_observed", job_id=given("observed"), tagger_conn_id="tagger_observed")
    OrganizerJobSensor(task_id="organizer", job_id=given("organizer"))
    OrganizerUploadSensor(task_id="upload", file_id="scan.pdf")
    HaidyTaskSensor(task_id="haidy", haidy_task_id=given("haidy"))

with DAG("workerless", schedule=None, catchup=False, default_args={"timeout": 120, "poll_interval": 1}):
    begun = {"start_from_trigger": True}

    @task
    def somebody_else(job_id: str) -> str:
        return job_id

    HaidyTaskSensor(task_id="handed_over", haidy_task_id=somebody_else(given("haidy")), **begun)
    ArealCopilotSensor(
        task_id="scoped", copilot_task_id=given("copilot"), upload_session_id=given("scope"), **begun
    )
    TaggerBatchSensor(task_id="unknown", job_id=given("unknown"), **begun)
    OrganizerJobSensor(task_id="late", job_id=given("endless"), **begun | {"timeout": 5})
    ArealDocumentSensor.partial(task_id="mapped", **begun).expand(document_id=[given("document")])

with DAG("unhappy", schedule=None, catchup=False, default_args={"timeout": 120, "poll_interval": 1}):
    ArealDocumentSensor(task_id="fails", document_id=given("failing"))
    ArealDocumentSensor(
        task_id="fails_resumed", document_id=given("failing"), end_from_trigger=False, retries=0
    )
    ArealDocumentSensor(task_id="skips", document_id=given("failing"), soft_fail=True)
    TaggerBatchOperator(task_id="partial", documents=ROWS, fail_on_partial=True)
    HaidyTaskSensor(task_id="unknown", haidy_task_id="../no such\ntask")
    TaggerBatchSensor(task_id="unknown_batch", job_id="a/../b")
    OrganizerJobSensor(task_id="late", job_id=given("endless"), timeout=10, retries=2)
    OrganizerJobSensor(task_id="no_connection", job_id="1", organizer_conn_id="nowhere")

with DAG("killed", schedule=None, catchup=False, default_args={"timeout": 300, "poll_interval": 1}):
    TaggerBatchOperator(task_id="tagger", documents=ROWS)

with DAG("survives", schedule=None, catchup=False, default_args={"timeout": 300, "poll_interval": 1}):
    ArealDocumentSensor.partial(task_id="document").expand(document_id=[given(f"d{n}") for n in range(5)])
    HaidyTaskSensor.partial(task_id="haidy").expand(haidy_task_id=[given(f"h{n}") for n in range(5)])

with DAG("watched", schedule=None, catchup=False, default_args={"timeout": 300, "poll_interval": 1}):
    TaggerBatchSensor(task_id="batch", job_id=given("batch"))
    HaidyTaskSensor.partial(task_id="haidy").expand(haidy_task_id=[given("haidy")])
