#!/usr/bin/env bash
# The store's tests over PostgreSQL, limits of three gateways behind HAProxy, a hundred thousand wrong keys, a full
# disk, and gateways and a database that are killed under load.
#
#   tests/store/run.sh BINARY [SECONDS]
#
# PostgreSQL is Debian's, in a folder and on a socket of its own; it and HAProxy are installed if they are not there.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly binary=${1:?the program} seconds=${2:-40}

server() {
  local found
  found=$(find /usr/lib/postgresql -maxdepth 3 -name initdb -path '*/bin/*' 2>/dev/null | sort -V | tail -n 1)
  [ -z "$found" ] || dirname "$found"
}

bin=$(server)
missing=()
[ -n "$bin" ] || missing+=(postgresql)
command -v haproxy >/dev/null || missing+=(haproxy)
if [ "${#missing[@]}" -gt 0 ]; then
  root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  export DEBIAN_FRONTEND=noninteractive
  "${root[@]}" apt-get update -q
  "${root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
  bin=$(server)
fi

folder=$(mktemp -d)
trap 'stop_server; rm -rf "$folder"' EXIT
export PGDATA=$folder/data
# It does not run as root.
as_owner=()
if [ "$(id -u)" -eq 0 ]; then
  chown postgres: "$folder"
  as_owner=(runuser -u postgres --)
fi
chmod 755 "$folder"

start_server() {
  "${as_owner[@]}" "$bin/pg_ctl" -D "$PGDATA" -s -w -l "$folder/log" \
    -o "-k $folder -c listen_addresses='' -c max_connections=200" start
}
stop_server() {
  "${as_owner[@]}" "$bin/pg_ctl" -D "$PGDATA" -s -m immediate stop 2>/dev/null || true
}

"${as_owner[@]}" "$bin/initdb" -D "$PGDATA" -U postgres -A trust --no-sync >"$folder/initdb"
start_server
export SEALGATE_TEST_POSTGRES="postgres://postgres@${folder//\//%2F}/postgres"

cargo test --workspace --locked --lib store::
cargo test --workspace --locked --test it -- store:: audit:: admin_api::

# What restarts the database after it was killed.
cat >"$folder/start" <<START
#!/bin/sh
exec ${as_owner[*]} $bin/pg_ctl -D $PGDATA -s -w -l $folder/log -o "-k $folder -c listen_addresses='' -c max_connections=200" start
START
chmod 755 "$folder/start"
export TEST_POSTGRES_URL=$SEALGATE_TEST_POSTGRES TEST_POSTGRES_PID=$PGDATA/postmaster.pid
export TEST_POSTGRES_START=$folder/start TEST_POSTGRES_LOG=$folder/log
# It would be taken for a key of the configuration.
unset SEALGATE_TEST_POSTGRES
for script in limits wrong_keys full killed; do
  echo "-- $script"
  python3 "tests/store/$script.py" "$binary" "$seconds"
done
