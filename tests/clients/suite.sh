#!/usr/bin/env bash
# Runs one suite in its environment: `run.sh` has made that, and tells in variables what to ask.
#
#   tests/clients/suite.sh SUITE
set -euo pipefail

# uv leaves compiling to the first import: what that made is kept.
unset PYTHONDONTWRITEBYTECODE
cd "$(dirname "${BASH_SOURCE[0]}")"
tests=$1 options=()
case $1 in
  # The same tests under another version, but those that want the engine to themselves, and the many refusals, which are
  # the gateway's: how errors arrive is among the others.
  openai-python-2)
    tests=openai-python
    options=(--ignore openai-python/test_disconnects.py --ignore openai-python/test_refusals.py)
    ;;
  # They leave connections open when all is over.
  litellm | langchain) options=(-p no:unraisableexception) ;;
esac
if [ -x "$1/smoke.sh" ]; then
  "$1/smoke.sh"
elif [ -f "$1/package.json" ]; then
  cd "$1"
  npm test --silent
else
  "$1/.venv/bin/python" -m pytest "${options[@]}" "$tests"
fi
