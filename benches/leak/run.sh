#!/usr/bin/env bash
# What an observer of sealed streams learns of their topic, for each padding, and what each costs.
#
#   benches/leak/run.sh BINARY [--quick] [--goal] [--out FOLDER] [OPTION OF record.py …]
#
# records traces with BINARY, trains classifiers on them and prints tables; traces and figures stay in FOLDER
# (target/leak). The first run makes the Python environment. --quick takes two or three minutes, leaves out the leg before
# the gateway and says less.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/engine/venv.sh
. "$here/../../tests/engine/venv.sh"

if [ $# -eq 0 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
binary=$1 folder=$here/../../target/leak
shift
recorder=() judge=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) recorder+=(--prompts 30 --repeats 1 --groups 10 --no-client-tls) ;;
    --goal) judge+=(--goal) ;;
    --out)
      folder=$2
      shift
      ;;
    *) recorder+=("$1") ;;
  esac
  shift
done

mkdir -p "$folder"
venv "$here" >&2
"$here/.venv/bin/python" "$here/record.py" "$binary" "$folder/traces.jsonl" "${recorder[@]}"
"$here/.venv/bin/python" "$here/study.py" "$folder/traces.jsonl" "$folder/results.json" "${judge[@]}"
printf '\nWhat the row of a paced stream tells by itself: AUC, and what it adds\n\n'
"$here/.venv/bin/python" "$here/rows.py"
