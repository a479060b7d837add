#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the development environment: tools/venv.sh [DIRECTORY], from nothing but Python 3.11+ and a package index.
# Run again, it brings an existing one up to date. PYTHON names the interpreter; otherwise the first fit one is taken.
set -eu

venv=${1:-.venv}

fail() {
    echo "error: $*" >&2
    exit 1
}

# A name on PATH is no proof: pyenv has shims for versions that are not installed. So each is run.
python='' version='' old=''
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
    found=$("$candidate" -c 'import sys; print("%d.%d.%d %s" % (sys.version_info[:3] + (sys.executable,)))' 2>/dev/null) || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        version=${found%% *} python=${found#* }
        break
    fi
    old=${old:-"found ${found%% *} at ${found#* }"}
done
if [ -z "$python" ]; then
    fail "needs Python 3.11 or newer, ${old:-found no working ${PYTHON:-python3}}; set PYTHON=/path/to/python3.11"
fi

"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "Python $version at $python cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install python${version%.*}-venv) or set PYTHON"

if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Making $venv with Python $version ($python)"
    "$python" -m venv --clear "$venv" || fail "could not make $venv with $python"
fi

# Everything is downloaded by the package clients with the user's own settings; only they know where from.
pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

install_failed() {
    if pip install --quiet --retries 0 --dry-run --ignore-installed --no-deps pip >/dev/null 2>&1; then
        fail "could not install the development environment; the reason stands above"
    fi
    fail "could not download from the package index: check your network (or your proxy and index settings)"
}

echo "Installing airflow-status-provider with its development tools into $venv (about 150 packages)"
if "$venv/bin/uv" --version >/dev/null 2>&1 || pip install --quiet --retries 2 uv; then
    "$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" --constraints constraints-dev.txt --build-constraints constraints-dev.txt --editable . --group dev || install_failed
else
    echo "uv is not to be had, going on with pip, which takes longer"
    pip install --quiet --retries 2 --upgrade 'pip>=25.1' || install_failed # 25.1: --group
    pip install --constraint constraints-dev.txt --editable . --group dev || install_failed
fi
