#!/usr/bin/env bash
# Whether logs hold what no log may hold: prompts, answers and keys of the suites.
#
#   CANARY=… API_KEY=… tests/clients/logs.sh LOG…
set -euo pipefail

found=0
for log in "$@"; do
  for secret in "$CANARY" "$API_KEY" 'a prompt that no error may repeat' 'the sealed gateway' 'gather open run quote'; do
    if grep -qF -- "$secret" "$log"; then
      echo "$(basename "$log") holds: $secret"
      found=1
    fi
  done
done
[ "$found" -eq 0 ] && echo "$(cat "$@" | wc -l) lines in $# logs hold no prompt, no answer and no key"
