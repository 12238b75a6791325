# shellcheck shell=bash
# Sourced: `venv DIRECTORY` gives DIRECTORY/.venv exactly what DIRECTORY/requirements.txt pins, by pip or by the uv that
# UV names.

venv() {
  local environment=$1/.venv pins=$1/requirements.txt
  cmp -s "$pins" "$environment/pins" && return
  rm -rf "$environment"
  # Any Python from 3.11 on will do.
  if [ -n "${UV-}" ]; then
    "$UV" venv --quiet --python python3 "$environment"
    "$UV" pip install --quiet --no-deps --python "$environment/bin/python" -r "$pins"
  else
    python3 -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$pins"
  fi
  # Last, so that an environment cut short is made anew.
  cp "$pins" "$environment/pins"
}
