#!/bin/sh
# Make the Python environment .venv with the packages of one lock file.
#
#   make_environment.sh GROUP
#
# installs locks/GROUP.txt. pip refuses every file whose hash is not in it.
#
# The script needs only Python 3.11 or newer. Where Python's module venv cannot install
# pip, since Debian ships that in a package of its own, the script downloads and unpacks
# that package. It does not install it, so root is not needed.
set -eu

group=$1
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "cog_pipeline needs Python 3.11 or newer, and '$python' is not: install it, or name it, e.g. 'make demo PYTHON=python3.12'." >&2
    exit 1
fi

pip_from_debian() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/lists/partial"
    # apt checks Debian's signature of the package list. The last option makes it refuse
    # packages without a signature, whatever the machine's settings are.
    apt_options="-q -o Dir::State::lists=$scratch/lists -o Dir::Cache=$scratch -o APT::Sandbox::User= -o Debug::NoLocking=true -o APT::Get::AllowUnauthenticated=false"
    (
        cd "$scratch"
        # shellcheck disable=SC2086 # a list of options
        apt-get $apt_options update >/dev/null && apt-get $apt_options download python3-pip-whl >/dev/null
    ) || {
        echo "'$python -m venv' cannot install pip on this machine, and python3-pip-whl cannot be downloaded: install python3-venv." >&2
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
echo "installing the packages of locks/$group.txt"
.venv/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r "locks/$group.txt"
touch ".venv/ready-$group"
