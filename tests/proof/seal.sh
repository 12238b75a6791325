#!/usr/bin/env bash
# Re-runs what shows that the seal is what docs/wire.md and docs/security.md say: the tests, part by part, the vectors,
# and a client that shares no code with the node.
#
#   tests/proof/seal.sh [--leak]
#
# --leak adds the study of what lengths and times tell, short, held to its goals (benches/leak). Needs what
# tests/clients/run.sh needs. A part fails too if it ran no test. The last line has the totals.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export CARGO_TERM_COLOR=never
# The tests of Rust: a part's name, where they are, and a part of their paths.
readonly TESTS=(
  'the seal|--lib|seal::'
  'statements and their keys|--lib|statement'
  'post-quantum keys|--lib|post_quantum'
  'post-quantum, end to end|--test it|post_quantum'
  'padding|--lib|padding'
  'streams at a pace|--lib|paced'
  'lengths, end to end|--test it|lengths'
  'the life of keys|--lib|keys::'
  'keys that turn during an exchange|--lib|simulation::rotation'
  'secrets that are gone|--lib|gone'
  'credentials|--lib|credential'
  'credentials, end to end|--test it|credential'
  'evidence|--lib|attester::'
  'a gateway that is sealed to|--lib|gateway::tests::own'
  'what it lets in|--lib|gateway::tests::sealed'
  'a gateway that is sealed to, end to end|--test it|attested_gateway'
  'what holds under its seal, end to end|--test it|sealed_gateway'
  'attacks, end to end|--test it|attacks'
  'the client, end to end|--test it|client::'
)

program=${CARGO_TARGET_DIR:-target}/debug/sealgate
log=$(mktemp)
trap 'rm -f "$log"' EXIT
parts=0 all=0 failures=0

# sum PATTERN: adds up the numbers after or before which the pattern, with one group, stands in the log.
sum() { sed -nE "s/$1/\1/p" "$log" | awk '{ sum += $1 } END { print sum + 0 }'; }

# part NAME RAN FAILED STATUS: tells a part's result, and what it said where it failed.
part() {
  local name=$1 ran=$2 failed=$3 status=$4
  [ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
  if [ "$ran" -eq 0 ]; then
    echo 'no test ran' >>"$log"
    failed=$((failed > 0 ? failed : 1))
  fi
  [ "$failed" -eq 0 ] || tail -n 60 "$log"
  printf '%-40s %4d run, %d failed\n' "$name" "$ran" "$failed"
  parts=$((parts + 1)) all=$((all + ran)) failures=$((failures + failed))
}

rust() {
  local name where filter status=0
  IFS='|' read -r name where filter <<<"$1"
  # shellcheck disable=SC2086 # where they are is several words
  cargo test --workspace --locked --no-fail-fast $where -- "$filter" >"$log" 2>&1 || status=$?
  local passed failed
  passed=$(sum '^test result: .* ([0-9]+) passed;.*')
  failed=$(sum '^test result: .* ([0-9]+) failed;.*')
  part "$name" "$((passed + failed))" "$failed" "$status"
}

# That a test reads each: what is in it, the tests above hold the seal to.
vectors() {
  local file ran=0 failed=0
  : >"$log"
  for file in tests/vectors/*.json; do
    ran=$((ran + 1))
    if ! git grep -qF "vectors/${file##*/}" -- '*.rs'; then
      echo "$file is read by no test" >>"$log"
      failed=$((failed + 1))
    fi
  done
  part 'vectors that a test reads' "$ran" "$failed" 0
}

interop() {
  local status=0
  tests/clients/run.sh "$program" hpke-js >"$log" 2>&1 || status=$?
  part 'another HPKE, another language' "$(sum '^[^a-z]*tests ([0-9]+)$')" "$(sum '^[^a-z]*fail ([0-9]+)$')" "$status"
}

leak() {
  local status=0
  benches/leak/run.sh "$program" --quick --goal >"$log" 2>&1 || status=$?
  part 'what lengths and times tell' 1 0 "$status"
}

case $# in
  0) with_leak= ;;
  *)
    [ "$*" = --leak ] || { echo "usage: $0 [--leak]" >&2; exit 2; }
    with_leak=1
    ;;
esac
cargo test --workspace --locked --no-run --lib --bins --test it
for tests in "${TESTS[@]}"; do rust "$tests"; done
vectors
interop
[ -z "$with_leak" ] || leak
printf 'seal: %d parts, %d tests run, %d failed\n' "$parts" "$all" "$failures"
[ "$failures" -eq 0 ]
