#!/usr/bin/env bash
# What no SDK sends or shows: raw bodies, raw streams, headers. `run.sh` sets BASE_URL, API_KEY and CANARY.
set -euo pipefail

passed=0 failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bearer="authorization: Bearer $API_KEY"
json='content-type: application/json'
host=${BASE_URL%/v1}

# try NAME STATUS PATTERN CURL-ARGUMENT…: the status, a pattern in the body, and what every reply must have.
try() {
  local name=$1 status=$2 pattern=$3 seen wrong=
  shift 3
  seen=$(curl -sS --max-time 30 -o "$work/body" -D "$work/head" -w '%{http_code}' "$@") || wrong="curl ended with $?"
  [ "$seen" = "$status" ] || wrong+=" status $seen, not $status;"
  grep -qE -- "$pattern" "$work/body" || wrong+=" no $pattern in the body;"
  grep -qiE '^x-request-id: [0-9a-f]{32}.?$' "$work/head" || wrong+=" no x-request-id;"
  case $status in
    4*)
      grep -qi '^content-type: application/json' "$work/head" || wrong+=" the error is no JSON;"
      grep -qF "$CANARY" "$work/body" && wrong+=" the error repeats the prompt;"
      ;;
  esac
  verdict "$name" "$wrong"
}

verdict() {
  if [ -z "$2" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s:%s\n' "$1" "$2"
    head -c 600 "$work/head" "$work/body" 2>/dev/null || true
  fi
}

code() { printf '"code": ?"%s"' "$1"; }

# complete NAME STATUS PATTERN BODY [CURL-ARGUMENT…]: a completion with the key.
complete() {
  printf '%s' "$4" >"$work/request"
  try "$1" "$2" "$3" -H "$bearer" -H "$json" --data-binary "@$work/request" "${@:5}" "$BASE_URL/completions"
}

# A prompt that is to be found in no error and in no log.
prompt="\"prompt\":\"$CANARY the river\""
good="{\"model\":\"tiny\",$prompt,\"max_tokens\":4,\"temperature\":0}"

try 'health without a key' 200 '' "$host/health"
try 'readiness without a key' 200 '' "$host/readyz"
try 'models' 200 '"id": ?"tiny"' -H "$bearer" "$BASE_URL/models"
complete 'a completion' 200 '"object": ?"text_completion"' "$good"
# post NAME STATUS PATTERN PATH BODY [CURL-ARGUMENT…]: any other request with the key.
post() {
  try "$1" "$2" "$3" -H "$bearer" -H "$json" -d "$5" "${@:6}" "$BASE_URL$4"
}
messages="\"messages\":[{\"role\":\"user\",\"content\":\"$CANARY the river\"}]"
post 'a chat' 200 '"object": ?"chat.completion"' /chat/completions "{\"model\":\"tiny\",$messages,\"max_tokens\":4}"
post 'no messages' 400 "$(code invalid_request)" /chat/completions "{\"model\":\"tiny\",\"message\":\"$CANARY\"}"
post 'embeddings' 200 '"object": ?"embedding"' /embeddings "{\"model\":\"tiny\",\"input\":\"$CANARY\"}"
post 'images' 200 '"b64_json": ?"iVBOR' /images/generations \
  "{\"model\":\"picture\",\"prompt\":\"$CANARY\",\"response_format\":\"b64_json\"}"

try 'the nodes' 200 '"id": ?"demo-node"' -H "$bearer" "$BASE_URL/nodes"
try 'the nodes without a key' 401 "$(code invalid_api_key)" "$BASE_URL/nodes"
try "a node's evidence" 200 '"statement": ?"' -H "$bearer" "$BASE_URL/nodes/demo-node/attestation"
try 'the evidence of no node' 404 "$(code node_not_found)" -H "$bearer" "$BASE_URL/nodes/nobody/attestation"
post 'a lock' 200 '"public_key": ?"[A-Za-z0-9+/]{43}="' /nodes/lock '{"model":"tiny","timeout":1}'
post 'a lock of an unknown model' 404 "$(code model_not_found)" /nodes/lock '{"model":"nope"}'

complete 'a body in chunks' 200 '"finish_reason": ?"length"' "$good" -H 'transfer-encoding: chunked'
complete 'white space around the body' 200 '"text"' " $good"$'\n'
try 'the scheme in lower case' 200 '"text"' \
  -H "authorization: bearer $API_KEY" -H "$json" -d "$good" "$BASE_URL/completions"
try 'a media type with a parameter' 200 '"text"' \
  -H "$bearer" -H 'content-type: application/json; charset=utf-8' -d "$good" "$BASE_URL/completions"

try 'no key' 401 "$(code invalid_api_key)" -H "$json" -d "$good" "$BASE_URL/completions"
try 'no key for models' 401 "$(code invalid_api_key)" "$BASE_URL/models"
try 'another scheme' 401 "$(code invalid_api_key)" -u "user:$API_KEY" -H "$json" -d "$good" "$BASE_URL/completions"
complete 'no JSON' 400 "$(code invalid_json)" "{\"model\":\"tiny\",$prompt"
complete 'an empty body' 400 "$(code 'invalid_(json|request)')" ''
complete 'more than one value' 400 "$(code invalid_json)" "$good$good"
complete 'no object' 400 "$(code 'invalid_(json|request)')" "[\"$CANARY\"]"
complete 'bad UTF-8' 400 "$(code invalid_json)" "$(printf '{"model":"tiny","prompt":"%s \xff"}' "$CANARY")"
complete 'half a surrogate pair' 400 "$(code 'invalid_(json|request)')" "{\"model\":\"tiny\",\"prompt\":\"$CANARY \\ud83d\"}"
complete 'a member twice' 400 "$(code duplicate_member)" "{\"model\":\"tiny\",$prompt,\"n\":1,\"n\":1}"
complete 'a member twice, once escaped' 400 "$(code duplicate_member)" "{\"model\":\"tiny\",$prompt,\"n\":1,\"\\u006e\":1}"
deep=$(head -c 100000 /dev/zero | tr '\0' '[')
complete 'deep nesting' 400 "$(code 'invalid_(json|request)')" "{\"model\":\"tiny\",$prompt,\"x\":$deep"
try 'another media type' 415 "$(code unsupported_media_type)" \
  -H "$bearer" -H 'content-type: text/plain' -d "$good" "$BASE_URL/completions"
try 'another method' 405 '"error"' -H "$bearer" "$BASE_URL/completions"
try 'another path' 404 "$(code not_found)" -H "$bearer" "$BASE_URL/nothing"
# Nine MiB are announced and none of them sent.
try 'too large' 413 "$(code request_too_large)" -H "$bearer" -H "$json" -H 'expect: 100-continue' \
  -H 'content-length: 9437184' -X POST "$BASE_URL/completions"

# The bytes of a stream.
curl -sS -N --max-time 30 -D "$work/head" -o "$work/body" -H "$bearer" -H "$json" \
  -d "{\"model\":\"tiny\",\"prompt\":\"say emoji\",\"max_tokens\":50,\"temperature\":0,\"stream\":true}" \
  "$BASE_URL/completions"
wrong=
grep -qi '^content-type: text/event-stream' "$work/head" || wrong+=' no event stream;'
grep -qi '^cache-control: .*no-' "$work/head" || wrong+=' it may be cached;'
grep -qi '^content-encoding' "$work/head" && wrong+=' it is encoded;'
[ "$(tail -c 14 "$work/body")" = 'data: [DONE]' ] || wrong+=' it does not end with [DONE];'
grep -vqE '^(data: (\{.*\}|\[DONE\])|:.*|)$' "$work/body" && wrong+=' a line is neither data nor a comment;'
grep -q ':usage' "$work/body" && wrong+=' a comment of the node came through;'
verdict 'a stream, byte by byte' "$wrong"

printf 'curl: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
