#!/bin/sh
# Make the Python environment .venv with what one lock file names.
#
#   make_environment.sh GROUP
#
# installs locks/GROUP.txt. pip refuses any file whose hash is not in it.
#
# Wants a Python 3.11 or newer and nothing else of it: where its package venv
# cannot install pip (Debian ships that apart), pip comes from Debian's package,
# unpacked and not installed, so root is not needed.
set -eu

group=$1
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "cog_pipeline wants Python 3.11 or newer as '$python': install it, or name it, e.g. 'make demo PYTHON=python3.12'." >&2
    exit 1
fi

pip_from_debian() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/lists/partial"
    # apt checks the package against Debian's signature, unless the machine's settings
    # allow what has none.
    apt_options="-q -o Dir::State::lists=$scratch/lists -o Dir::Cache=$scratch -o APT::Sandbox::User= -o Debug::NoLocking=true -o APT::Get::AllowUnauthenticated=false"
    (
        cd "$scratch"
        # shellcheck disable=SC2086 # a list of options
        apt-get $apt_options update >/dev/null && apt-get $apt_options download python3-pip-whl >/dev/null
    ) || {
        echo "'$python -m venv' cannot install pip here, and python3-pip-whl cannot be fetched: install python3-venv." >&2
        exit 1
    }
    dpkg -x "$scratch"/python3-pip-whl_*.deb "$scratch"
    wheels=$scratch/usr/share/python-wheels
    "$python" -m venv --without-pip .venv
    .venv/bin/python "$(echo "$wheels"/pip-*.whl)/pip" --quiet install --no-index --find-links "$wheels" pip
}

if [ ! -x .venv/bin/pip ]; then
    rm -rf .venv
    echo "making the Python environment .venv"
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv .venv
    else
        pip_from_debian
    fi
fi
echo "installing what '$group' needs"
.venv/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r "locks/$group.txt"
touch ".venv/ready-$group"
