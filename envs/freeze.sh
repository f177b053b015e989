#!/usr/bin/env bash
# Freeze the environments to explicit lists of packages, which Snakemake prefers to the YAML files:
#
#   envs/freeze.sh                 # every environment
#   envs/freeze.sh torch           # one
#   CUDA=13.0 envs/freeze.sh torch # for another CUDA
#
# writes envs/NAME.linux-64.pin.txt with the address and checksum of every package. It needs a
# network and one of micromamba, mamba or conda; no GPU, since CUDA names the driver to solve for.
set -euo pipefail
cd "$(dirname "$0")"

# conda takes the CUDA build of PyTorch for the newest driver that it is told of
export CONDA_OVERRIDE_CUDA="${CUDA:-12.9}"
export CONDA_SUBDIR=linux-64

for tool in micromamba mamba conda; do
  if command -v "$tool" >/dev/null; then break; fi
  tool=
done
if [ -z "$tool" ]; then
  echo "freeze.sh: micromamba, mamba and conda are missing; install one of them and run it again." >&2
  exit 1
fi
if [ $# = 0 ]; then
  for file in *.yaml; do set -- "$@" "${file%.yaml}"; done
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in "$@"; do
  if [ ! -f "$name.yaml" ]; then
    echo "freeze.sh: envs/$name.yaml does not exist; name one of the environments beside this script." >&2
    exit 1
  fi
  if [ "$tool" = micromamba ]; then
    micromamba create --yes --quiet --prefix "$folder/$name" --file "$name.yaml"
    micromamba env export --explicit --md5 --prefix "$folder/$name" >"$folder/$name.txt"
  else
    "$tool" env create --quiet --prefix "$folder/$name" --file "$name.yaml"
    "$tool" list --explicit --md5 --prefix "$folder/$name" >"$folder/$name.txt"
  fi
  grep -q '^@EXPLICIT' "$folder/$name.txt"
  if [ "$name" = torch ] && ! grep -q '/pytorch-[0-9][^/]*cuda' "$folder/$name.txt"; then
    echo "freeze.sh: no CUDA build of PyTorch for CUDA $CONDA_OVERRIDE_CUDA; set CUDA to a version that conda-forge builds for." >&2
    exit 1
  fi
  mv "$folder/$name.txt" "$name.linux-64.pin.txt"
  echo "envs/$name.linux-64.pin.txt"
done
