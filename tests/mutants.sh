#!/usr/bin/env bash
# Breaks the verifier and the seal at one place at a time, and runs their tests on each: what survives is a check that
# no test guards. Takes hours for all, and is no step of .ci/run.
#
#   tests/mutants.sh                                  all of both
#   tests/mutants.sh attestation 'attestation/src/ocsp.rs'
#   tests/mutants.sh sealgate 'src/seal/stream.rs'
#
# Ends with 0 if nothing survived. target/mutants/*/mutants.out holds what did.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/target/tools/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
readonly CARGO_MUTANTS=27.1.0

if [ "$(cargo mutants --version 2>/dev/null)" != "cargo-mutants $CARGO_MUTANTS" ]; then
  cargo install cargo-mutants --debug --locked --version "$CARGO_MUTANTS" --root target/tools
fi

# One package's tests on its mutants; what follows goes to `cargo test`.
mutants() {
  local package=$1 files=$2
  shift 2
  mkdir -p "target/mutants/$package"
  cargo mutants --package "$package" --file "$files" --timeout 300 --output "target/mutants/$package" -- --locked "$@"
}

status=0
case ${1-all} in
  all)
    mutants attestation 'attestation/src/**' || status=$?
    mutants sealgate 'src/seal/**' --lib seal:: || status=$?
    ;;
  attestation) mutants attestation "${2-attestation/src/**}" || status=$? ;;
  sealgate) mutants sealgate "${2-src/seal/**}" --lib seal:: || status=$? ;;
  *)
    echo "no package $1: attestation, sealgate" >&2
    exit 2
    ;;
esac
exit "$status"
