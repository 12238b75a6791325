#!/usr/bin/env bash
# Starts the real engine of the tests on a port that the kernel chooses, in the foreground:
#
#   tests/engine/start.sh [--port N] [--alias NAME] [--parallel N] [--api-key KEY]
#
# The first run makes the Python environment. Prints `engine listening on URL pid PID`; SIGTERM ends it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/engine/venv.sh
. "$here/venv.sh"
venv "$here" >&2
exec "$here/.venv/bin/python" "$here/engine.py" "$@"
