#!/usr/bin/env bash
# Tries real clients against real answers: the OpenAI SDKs for Python and Node, and curl, speak to `sealgate demo`
# in front of a real engine.
#
#   tests/clients/run.sh target/debug/sealgate
#
# Needs curl and Python 3.11 or newer with venv; all else is pinned and kept in `.venv` and `node_modules` here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -ne 1 ] || [ ! -x "$1" ]; then
  echo "usage: $0 SEALGATE-BINARY" >&2
  exit 2
fi
sealgate=$(realpath "$1")
work=$(mktemp -d)
started=()

# end PID: asks it to stop, insists after ten seconds; gives its exit status.
end() {
  kill -TERM "$1" 2>/dev/null || true
  { sleep 10 && kill -KILL "$1"; } 2>/dev/null &
  local watchdog=$! status=0
  wait "$1" 2>/dev/null || status=$?
  kill "$watchdog" 2>/dev/null || true
  return "$status"
}

finish() {
  local status=$? pid
  for pid in "${started[@]}"; do end "$pid" || true; done
  if [ "$status" -ne 0 ]; then
    tail -n 30 "$work"/*.out "$work"/*.log 2>/dev/null | cut -c1-300 || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT

# start NAME COMMAND…: in the background, standard output to NAME.out and standard error to NAME.log.
start() {
  "${@:2}" >"$work/$1.out" 2>"$work/$1.log" &
  pid=$!
  started+=("$pid")
}

# await NAME SED-SCRIPT: prints what the script finds in NAME.out once it is there.
await() {
  local found
  for _ in $(seq 1200); do
    found=$(sed -n "$2" "$work/$1.out")
    [ -z "$found" ] || { printf '%s\n' "$found"; return; }
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
  done
  echo "$1 did not become ready" >&2
  return 1
}

heading() { printf '\n== clients: %s\n' "$1"; }

heading 'environments'
# shellcheck source=tests/engine/venv.sh
. "$here/../engine/venv.sh"
venv "$here/../engine"
venv "$here/python"
venv "$here/node"
PATH=$here/node/.venv/bin:$PATH
if ! cmp -s "$here/node/package-lock.json" "$here/node/node_modules/lock"; then
  (cd "$here/node" && npm ci --no-audit --no-fund --loglevel=error)
  cp "$here/node/package-lock.json" "$here/node/node_modules/lock"
fi

heading 'the engine and the gateway'
start engine "$here/../engine/start.sh"
ENGINE_URL=$(await engine 's/^engine listening on \(http[^ ]*\).*/\1/p')
ENGINE_LOG=$work/engine.log
# The most verbose log there is: nothing of the prompts may be in it.
start gateway env SEALGATE_LOG=trace "$sealgate" demo --engine "$ENGINE_URL" --listen 127.0.0.1:0 --api-key sk-test
gateway=$pid
BASE_URL=$(await gateway 's/^base url: //p')
API_KEY=$(await gateway 's/^api key: //p')
CANARY="canary $RANDOM$RANDOM$RANDOM"
export ENGINE_URL ENGINE_LOG BASE_URL API_KEY CANARY
echo "engine $ENGINE_URL, gateway $BASE_URL"

wrong=0
heading 'curl'
"$here/curl/smoke.sh" || wrong=1
heading 'Python SDK'
(cd "$here/python" && PYTHONDONTWRITEBYTECODE=1 .venv/bin/python -m pytest) || wrong=1
heading 'Node SDK'
(cd "$here/node" && npm test --silent) || wrong=1

heading 'what the demo says to paste'
pasted=0
while IFS= read -r line; do
  pasted=$((pasted + 1))
  said=$(PATH=$here/python/.venv/bin:$PATH bash -c "$line" 2>&1) || said=
  if [ -z "$said" ] || grep -q '"error"' <<<"$said"; then
    printf 'FAILED %s\n%s\n' "$line" "$said"
    wrong=1
  fi
done < <(sed -n 's/^ *\(curl .*\|python3 .*\)$/\1/p' "$work/gateway.out")
[ "$pasted" -ge 2 ] || { echo 'no curl and Python lines'; wrong=1; }
echo "$pasted lines pasted"

heading 'the end'
end "$gateway" || { echo "the gateway ended with status $? on SIGTERM" >&2; exit 1; }
for secret in "$CANARY" 'a prompt that no error may repeat' 'the sealed gateway' "$API_KEY"; do
  if grep -qF -- "$secret" "$work/gateway.log"; then
    echo "the gateway's log holds: $secret" >&2
    exit 1
  fi
done
[ "$wrong" -eq 0 ] || exit 1
echo "the gateway ended cleanly; its log of $(wc -l <"$work/gateway.log") lines holds no prompt and no key"
