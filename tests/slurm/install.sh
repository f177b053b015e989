#!/usr/bin/env bash
# Install SLURM and munge from Debian's packages, where they are absent and that is possible.
# The packages' own services are not started: the tests run daemons of their own.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

if command -v munged slurmctld slurmd squeue srun >/dev/null && [ "$(command -v munged slurmctld slurmd squeue srun | wc -l)" = 5 ]; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "SLURM is absent and cannot be installed without root and apt-get: its tests are skipped."
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # "action forbidden", for the time of this script
  chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
if ! { apt-get -qq update && apt-get -qq install --yes --no-install-recommends slurm-wlm munge; } >/dev/null 2>&1; then
  echo "SLURM's packages (slurm-wlm, munge) could not be installed: its tests are skipped."
fi
