#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The lowest versions that pyproject.toml allows, with the oldest Airflow: tools/lowest.sh [DIRECTORY [TESTS...]]
# makes an environment of them and runs the tests of what depends on them most. Needs uv, which tools/venv.sh gets.
set -eu

home=${1:-build/lowest}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- tests/transport tests/protocols
bin=$PWD/.venv/bin
python=$PWD/$home/bin/python

"$bin/uv" venv --quiet --clear --python "$bin/python" "$home"
# structlog: as Airflow 3.1.0's constraints have it, which breaks with a newer one
"$bin/uv" pip install --quiet --python "$python" --resolution lowest-direct \
    --editable . 'apache-airflow>=3.1,<3.2' 'structlog>=25.4,<25.5'
"$bin/uv" pip install --quiet --python "$python" hypothesis pytest pytest-asyncio pytest-xdist
"$bin/uv" pip list --quiet --python "$python" | grep -E '^(aiohttp|apache-airflow|httpx|pydantic|websockets) '
"$python" -m pytest -q -n 2 "$@"
