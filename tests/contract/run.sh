#!/usr/bin/env bash
# Asks a gateway whatever its own OpenAPI document allows and forbids, and holds every answer against the document.
#
#   tests/contract/run.sh target/debug/sealgate
#
# Needs curl and Python 3.11 or newer with venv; Schemathesis is pinned and kept in `.venv` here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -ne 1 ] || [ ! -x "$1" ]; then
  echo "usage: $0 SEALGATE-BINARY" >&2
  exit 2
fi
sealgate=$(realpath "$1")
work=$(mktemp -d)
gateway=

finish() {
  local status=$?
  [ -z "$gateway" ] || { kill -TERM "$gateway" && wait "$gateway"; } 2>/dev/null || true
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT

# shellcheck source=tests/engine/venv.sh
. "$here/../engine/venv.sh"
venv "$here"

export MODEL=echo API_KEY=sk-test CANARY="canary-$RANDOM$RANDOM$RANDOM" SCHEMATHESIS_HOOKS=hooks
SEALGATE_LOG=trace "$sealgate" demo --listen 127.0.0.1:0 --api-key "$API_KEY" >"$work/out" 2>"$work/log" &
gateway=$!
for _ in $(seq 1200); do
  base=$(sed -n 's/^base url: \(.*\)\/v1$/\1/p' "$work/out")
  [ -z "$base" ] || break
  kill -0 "$gateway" || { cat "$work/log" >&2; exit 1; }
  sleep 0.05
done

# Beside this, so that the hooks are found and what it writes is thrown away.
cd "$work"
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 "$here/.venv/bin/schemathesis" \
  --config-file "$here/schemathesis.toml" run "$base/openapi.json"

if grep -qF "$CANARY" "$work/log"; then
  echo "the log holds what was in a prompt" >&2
  exit 1
fi
echo "the log of $(wc -l <"$work/log") lines holds no prompt"
