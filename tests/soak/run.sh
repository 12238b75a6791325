#!/usr/bin/env bash
# Asks a gateway for a while, and fails if anything grows, leaks or goes wrong.
#
#   tests/soak/run.sh BINARY SECONDS [PAUSE_MS]
#
# prints requests by outcome, memory with its slope, open files, and what is held after a pause.
set -euo pipefail
exec python3 "$(dirname "$0")/soak.py" "$@"
