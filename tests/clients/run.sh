#!/usr/bin/env bash
# Tries real clients against real answers: each suite is a client in an environment of its own, and speaks to a gateway
# and a node in front of a real engine.
#
#   tests/clients/run.sh target/debug/sealgate            all suites
#   tests/clients/run.sh target/debug/sealgate SUITE…     some of them, by their folders' names
#
# Needs curl, a C++ compiler, make and Python 3.11 or newer with venv; all else is pinned, and kept in `.venv` and
# `node_modules` here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# These want the engine to themselves: they look at whether it is at work.
readonly ALONE=(openai-python openai-node)
readonly TOGETHER=(openai-python-2 litellm langchain llm ai-sdk atoma-python atoma-node ehbp-python ehbp-node hpke-js curl)

if [ $# -lt 1 ] || [ ! -x "$1" ]; then
  echo "usage: $0 SEALGATE-BINARY [SUITE…]" >&2
  exit 2
fi
SEALGATE=$(realpath "$1")
suites=("${@:2}")
[ "${#suites[@]}" -gt 0 ] || suites=("${ALONE[@]}" "${TOGETHER[@]}")

# shellcheck source=tests/clients/processes.sh
. "$here/processes.sh"
# shellcheck source=tests/clients/environments.sh
. "$here/environments.sh"

heading 'environments'
# The demo's lines are pasted into the first.
environments openai-python "${suites[@]}"
echo "after $SECONDS s"

# The most verbose log there is: nothing of the prompts may be in it.
export SEALGATE SEALGATE_LOG=trace API_KEY=sk-test
CANARY="canary $RANDOM$RANDOM$RANDOM"
ENGINE_LOG=$work/engine.log
start engine "$here/../engine/start.sh"
start images python3 "$here/../engine/images.py"
ENGINE_URL=$(said engine 's/^engine listening on \(http[^ ]*\).*/\1/p')
IMAGES_URL=$(said images 's/^images listening on \(http[^ ]*\).*/\1/p')
export CANARY ENGINE_LOG ENGINE_URL IMAGES_URL

heading 'what the demo says to paste'
SET_UP=$work/set-up
start demo "$SEALGATE" demo --engine "$ENGINE_URL" --listen 127.0.0.1:0 --api-key "$API_KEY" --dir "$SET_UP"
said demo 's/^base url: //p'
wrong=0 pasted=0
while IFS= read -r line; do
  pasted=$((pasted + 1))
  answer=$(PATH=$here/openai-python/.venv/bin:$PATH bash -c "$line" 2>&1) || answer=
  if [ -z "$answer" ] || grep -q '"error"' <<<"$answer"; then
    printf 'FAILED %s\n%s\n' "$line" "$answer"
    wrong=1
  fi
done < <(sed -n 's/^ *\(curl .*\|python3 .*\)$/\1/p' "$work/demo.out")
[ "$pasted" -ge 2 ] || { echo 'no curl and Python lines'; wrong=1; }
end demo || { echo "the demo ended with status $?"; wrong=1; }
echo "$pasted lines pasted"

# What the demo made, as two processes; the node has the images' engine too.
printf '\n[[engine]]\nurl = "%s"\n' "$IMAGES_URL" >>"$SET_UP/node.toml"
sed -i 's/^listen = .*/listen = "127.0.0.1:0"/' "$SET_UP"/{node,gateway}.toml
start node "$SEALGATE" node --config "$SET_UP/node.toml"
NODE_URL=$(said node 's/^sealgate node listening on //p')
sed -i "s#^url = \"http.*#url = \"$NODE_URL\"#" "$SET_UP/gateway.toml"
start gateway "$SEALGATE" gateway --config "$SET_UP/gateway.toml"
GATEWAY_URL=$(said gateway 's/^sealgate gateway listening on //p')
BASE_URL=$GATEWAY_URL/v1
await gateway curl -fs "$GATEWAY_URL/readyz" >/dev/null
export SET_UP NODE_URL GATEWAY_URL BASE_URL
LOGS=$work
export LOGS
printf 'engine %s, node %s, gateway %s\n' "$ENGINE_URL" "$NODE_URL" "$GATEWAY_URL"

# try SUITE: shows what it said when it has ended.
try() {
  local status=0 begun=$SECONDS
  "$here/suite.sh" "$1" >"$LOGS/$1.said" 2>&1 || status=$?
  printf '\n== clients: %s, %d s\n%s\n' "$1" "$((SECONDS - begun))" "$(<"$LOGS/$1.said")"
  [ "$status" -eq 0 ] || echo "FAILED $1: $status"
  return "$status"
}
together=()
for suite in "${suites[@]}"; do
  if [[ " ${ALONE[*]} " == *" $suite "* ]]; then try "$suite" || wrong=1; else together+=("$suite"); fi
done
if [ "${#together[@]}" -gt 0 ]; then
  export here
  export -f try
  printf '%s\n' "${together[@]}" | xargs -P "$(nproc)" -I '{}' bash -c 'try {}' || wrong=1
fi

heading 'the end'
for name in gateway node; do
  end "$name" || { echo "the $name ended with status $? on SIGTERM"; wrong=1; }
done
"$here/logs.sh" "$work"/{demo,gateway,node}*.log || wrong=1
echo "after $SECONDS s"
concluded=1
[ "$wrong" -eq 0 ]
