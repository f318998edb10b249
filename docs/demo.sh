# The main job, offline: a ResNet-18 with random weights gets one input channel and two heads. Run by `make demo`.
set -eu

run() {
    printf '\n$ %s\n' "$*"
    sh -c "$*"
}

# Runs `$1 | $2`, and fails if either fails: not every sh has pipefail.
pipe() {
    printf '\n$ %s | %s\n' "$1" "$2"
    { sh -c "$1" || touch failed; } | sh -c "$2"
    if [ -e failed ]; then
        printf 'this failed: %s\n' "$1" >&2
        exit 1
    fi
}

printf 'A checkpoint, as if it had been trained:\n'
run "python -c \"import resnet_surgeon as rs; rs.open('resnet18', weights='random').save('resnet18.safetensors')\""
pipe "resnet-surgeon adapt resnet18.safetensors --in-ch 1 -q -o -" \
    "resnet-surgeon heads - --classes 3,5 -o model.safetensors"
run "ls -l model.safetensors model.json"
run "resnet-surgeon remove model.safetensors --layers heads --dry-run"

printf '\nThe manifest, model.json, says how it was made:\n'
python - <<'END'
import json

with open("model.json", encoding="utf-8") as file:
    manifest = json.load(file)
for field in ("source", "operations", "inputs", "outputs"):
    print(f"  {field}: {json.dumps(manifest[field])}")
END

if python -c 'import torch' 2> /dev/null; then
    printf '\nAnd as a module:\n'
    python -c "
import torch, resnet_surgeon as rs
model = rs.load('model.safetensors')
print('  ', [tuple(output.shape) for output in model(torch.zeros(2, 1, 224, 224))])"
else
    printf '\nTo load it as a module, with torch (`make test` installs it here; elsewhere: pip install ".[torch]"):\n'
    printf '  python -c "import resnet_surgeon as rs; print(rs.load(%smodel.safetensors%s))"\n' "'" "'"
fi
printf '\nThe files are in %s\n' "$PWD"
