#!/usr/bin/env bash
# The store's tests over PostgreSQL, and gateways and a database that are killed under load.
#
#   tests/store/run.sh BINARY [SECONDS]
#
# PostgreSQL is Debian's, in a folder and on a socket of its own; it is installed if it is not there.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly binary=${1:?the program} seconds=${2:-40}

server() {
  local found
  found=$(find /usr/lib/postgresql -maxdepth 3 -name initdb -path '*/bin/*' 2>/dev/null | sort -V | tail -n 1)
  [ -z "$found" ] || dirname "$found"
}

bin=$(server)
if [ -z "$bin" ]; then
  root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  export DEBIAN_FRONTEND=noninteractive
  "${root[@]}" apt-get update -q
  "${root[@]}" apt-get install -q -y --no-install-recommends postgresql
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
# It would be taken for a key of the configuration.
url=$SEALGATE_TEST_POSTGRES
unset SEALGATE_TEST_POSTGRES
python3 tests/store/killed.py "$binary" "$seconds" "$url" "$PGDATA/postmaster.pid" "$folder/start"
