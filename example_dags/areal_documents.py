"""Areal: process two closing disclosures, then balance them.

The operator uploads the files, waits for every document that they become (a file may be split into several)
and returns them. Nothing here holds a worker while it waits.
"""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import dag

from airflow_status_provider.operators.areal import ArealCDBalancerOperator, ArealProcessDocumentsOperator

SAMPLES = Path(__file__).parent / "samples"


@dag(schedule=None, catchup=False, tags=["example", "areal"])
def areal_documents():
    process = ArealProcessDocumentsOperator(
        task_id="process",
        files=[str(SAMPLES / "closing_disclosure_1.pdf"), str(SAMPLES / "closing_disclosure_2.pdf")],
        timeout=1800,
    )
    balance = ArealCDBalancerOperator(
        task_id="balance",
        document_id_1="{{ ti.xcom_pull('process')['documents'][0]['id'] }}",
        document_id_2="{{ ti.xcom_pull('process')['documents'][1]['id'] }}",
        timeout=600,
    )
    process >> balance


areal_documents()
