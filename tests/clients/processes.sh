# shellcheck shell=bash
# Sourced: what `run.sh` starts, awaits and ends. Output is kept in $work, which goes when the script ends.

work=$(mktemp -d)
declare -A pids=()

heading() { printf '\n== clients: %s\n' "$1"; }

# start NAME COMMAND…: in the background, standard output to NAME.out and standard error to NAME.log.
start() {
  "${@:2}" >"$work/$1.out" 2>"$work/$1.log" &
  pids[$1]=$!
}

# await NAME COMMAND…: prints what the command says once it says something, while NAME runs.
await() {
  local found
  for _ in $(seq 1200); do
    found=$("${@:2}" || true)
    [ -z "$found" ] || { printf '%s\n' "$found"; return; }
    kill -0 "${pids[$1]}" 2>/dev/null || break
    sleep 0.05
  done
  echo "$1 did not become ready" >&2
  return 1
}

# said NAME SED-SCRIPT: what the script finds in NAME.out once it is there.
said() { await "$1" sed -n "$2" "$work/$1.out"; }

# end NAME: asks it to stop, insists after ten seconds; gives its exit status.
end() {
  local pid=${pids[$1]} status=0
  unset "pids[$1]"
  kill -TERM "$pid" 2>/dev/null || true
  for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || status=$?
  return "$status"
}

finish() {
  local status=$? name
  for name in "${!pids[@]}"; do end "$name" || true; done
  # Where it came to its own end, the suites have told what went wrong.
  if [ "$status" -ne 0 ] && [ -z "${concluded-}" ]; then
    tail -n 30 "$work"/*.out "$work"/*.log 2>/dev/null | cut -c1-300 || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
