#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The newest version of everything: tools/newest.sh [DIRECTORY [TESTS...]] prints what is newer than in
# constraints-dev.txt, and if anything is, makes an environment of it and runs tests there. Needs uv.
set -eu

home=${1:-build/newest}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- tests/protocols tests/transport tests/waiting tests/hooks tests/test_provider_info.py
bin=$PWD/.venv/bin
python=$PWD/$home/bin/python

mkdir -p "$home"
"$bin/uv" pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header \
    --all-extras --group dev --group bench --group cluster --group docs pyproject.toml >"$home.txt"
if diff constraints-dev.txt "$home.txt"; then
    echo 'constraints-dev.txt has the newest version of everything'
    exit
fi
"$bin/uv" venv --quiet --clear --python "$bin/python" "$home"
"$bin/uv" pip install --quiet --python "$python" --constraints "$home.txt" --editable . --group dev
"$python" -m pytest -q -n 4 --dist loadgroup "$@"
