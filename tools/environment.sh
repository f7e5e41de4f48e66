# For ./demo and ./test: the project's own environment in .venv, with the tested versions.
# Sourced, with `root` set to the folder of the checkout; leaves `python` pointing into .venv.
# PYTHON=/path/to/python3.12 chooses the Python that .venv is made from.

torch_version=2.13.0
torch_cpu_index=https://download.pytorch.org/whl/cpu
venv=$root/.venv
python=$venv/bin/python

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is wanted; install it, or name it in the variable PYTHON." >&2
    return 1
}

make_venv() {
    [ -x "$python" ] && "$python" -m pip --version >/dev/null 2>&1 && return
    local base
    base=$(find_python) || return
    echo "Making an environment in $venv with $("$base" --version)."
    "$base" -m venv --clear "$venv" && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "This Python cannot make environments; installing Debian's python3-venv."
        apt-get update -qq && apt-get install -y -qq python3-venv && "$base" -m venv --clear "$venv" && return
    fi
    echo "This Python cannot make environments; on Debian: sudo apt install python3-venv" >&2
    return 1
}

install_torch() {
    local installed
    installed=$("$python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null) || true
    [ "${installed%%+*}" = "$torch_version" ] && return
    if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
        echo "There is a GPU: installing PyTorch $torch_version."
    else
        echo "There is no GPU: installing the CPU build of PyTorch $torch_version."
        "$python" -m pip install --quiet --no-deps --retries 1 --timeout 30 \
            --index-url "$torch_cpu_index" "torch==$torch_version" && return
        echo "PyTorch's CPU builds cannot be reached; installing torch==$torch_version from the usual place."
    fi
    "$python" -m pip install --quiet -c "$root/constraints.txt" "torch==$torch_version"
}

# Everything installed, once for each state of pyproject.toml and constraints.txt.
prepare_environment() {
    local stamp state
    stamp=$venv/.installed
    state=$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)
    make_venv || return
    if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
        install_torch || return
        echo "Installing cryohydra and what it needs."
        "$python" -m pip install --quiet -c "$root/constraints.txt" -e "$root[dev]" || return
        echo "$state" >"$stamp"
    fi
    "$python" - <<'PY'
import torch

build = "CPU build" if torch.version.cuda is None else f"CUDA {torch.version.cuda} build"
device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
print(f"PyTorch {torch.__version__} ({build}), computing on {device}, {torch.get_num_threads()} threads.")
PY
}
