# The owner's desk, shared by demo and bench: encrypts the server's image, makes and seals the model, writes the policy, registers keys and rules.
# Sourced after scripts/lib.sh and the stack's env. Everything secret is made here and leaves it encrypted only.
# desk ROOTFS MODEL_FLAGS...: sets O (the desk's folder), image, model, policy, launch. Finished parts are not repeated.
IMAGE_KEY=kbs:///demo/image-kek/1
MODEL_KEY=kbs:///demo/model-kek/1

cellactl() { "$BIN/cellactl" "$@"; }
ctr() { "$CTR" -a "$CONTAINERD" "$@"; }
kbs() { cellactl kbs "$@" --url "$KBS" --ca "$KBS_CA" --admin-key "$KBS_ADMIN_KEY"; }

desk() {
  local rootfs=$1; shift
  O=$STATE/owner; mkdir -p -m 700 "$O"
  local key
  key=$(cat "$CACHE/workload/version" "$BIN/cellactl" "$STATE/registry.port" <(echo "$*") | sha256sum | cut -c1-16)
  if [ "$(cat "$O/sealed" 2>/dev/null)" != "$key" ]; then
    rm -rf "$O/image" "$O/model" "$O/sealed" "$O/demo.gguf"
    cellactl image build --tag demo/llama-server:1 --from-dir "$rootfs" --entrypoint /usr/bin/llama-server --env PATH=/usr/bin --user 65534:65534 --workdir / --out "$O/image"
    cellactl image encrypt "oci:$O/image" "$REGISTRY/demo/llama-server:1" --registry-ca "$REGISTRY_CA" --key "$IMAGE_KEY" --key-file "$O/image.kek" >"$O/image.ref"
    say "image encrypted and pushed: $(tail -n 1 "$O/image.ref")"
    cellactl model demo "$O/demo.gguf" "$@"
    cellactl model seal "$O/demo.gguf" --name models/demo --version 1 --key "$MODEL_KEY" --key-file "$O/model.kek" --out "$O/model"
    cellactl model push "$O/model" "$REGISTRY/models/demo:1" --registry-ca "$REGISTRY_CA" >"$O/model.ref"
    say "model made, sealed and pushed: $(tail -n 1 "$O/model.ref")"
    echo "$key" >"$O/sealed"
  else
    say "image and model are as the last run left them: encrypted, in the registry"
  fi
  # llama.cpp must neither copy nor repack the weights: it maps what the agent has locked.
  ARGS=(/usr/bin/llama-server --model /models/demo/demo.gguf --load-mode mmap --no-repack -fit off --offline --no-ui -np 1 -c 512
    -t "$VCPUS" --host 0.0.0.0 --port 8080)
  image=$(tail -n 1 "$O/image.ref") model=$(tail -n 1 "$O/model.ref")
  cat >"$O/workload.toml" <<TOML
[kbs]
url = "$KBS_GUEST"
ca = "$KBS_CA"
[[registry]]
name = "$REGISTRY"
endpoint = "$REGISTRY_GUEST"
ca = "$REGISTRY_CA"
[network]
ingress = ["8080/tcp"]
[[container]]
name = "server"
image = "$image"
image-keys = ["$IMAGE_KEY"]
args = $(jq -cn '$ARGS.positional' --args -- "${ARGS[@]}")
env = ["OMP_WAIT_POLICY=passive", "GOMP_SPINCOUNT=0"]
[[container.tmpfs]]
destination = "/tmp"
size-mib = 64
[[container.mount]]
destination = "/models/demo"
model = "models/demo"
[[model]]
name = "models/demo"
version = 1
artifact = "$model"
keys = ["$MODEL_KEY"]
TOML
  cellactl policy write --from "$O/workload.toml" --out "$O/initdata.toml"
  policy=$(cellactl policy digest "$O/initdata.toml")
  local rule
  if [ "$TEE" = sim-tdx ]; then
    cellactl measure --image-dir "$GUEST_IMAGE" --firmware "$OVMF" --memory "$MEMORY_MIB" --tee tdx --json >"$O/registers.json"
    launch=$(jq -r '.launch_digest[0]' "$O/registers.json")
    jq --arg policy "$policy" '{"launch-digests": [], "policy-digests": [$policy], "allow-simulated": true,
      "tdx": {mrtd, "rtmr0": "any", "rtmr1": [.rtmr1], "rtmr2": [.rtmr2], "event-log": true}}' "$O/registers.json" >"$O/rule.json"
    rule=(--rule "$O/rule.json")
  else
    launch=$(cellactl measure --image-dir "$GUEST_IMAGE" --firmware "$OVMF" --vcpus "$VCPUS" --tee sim)
    rule=(--launch-digest "$launch" --policy-digest "$policy" --allow-simulated)
  fi
  say "policy digest  $policy"
  say "launch digest  $launch"
  local k
  for k in image model; do
    kbs set-key "demo/$k-kek/1" --key-file "$O/$k.kek" >/dev/null
    kbs set-rule "demo/$k-kek/1" "${rule[@]}" >/dev/null
  done
  say "keys and release rules are with the key broker"
}

# serve ID PORT: runs the server as container ID, its port 8080 forwarded to loopback port PORT.
serve() {
  ctr run -d --runtime io.containerd.cella.v2 --runtime-config-path "$SHIM_CONFIG" --snapshotter cella \
    --annotation "io.katacontainers.config.hypervisor.cc_init_data=$(cellactl policy annotation "$O/initdata.toml")" \
    --annotation "io.cella.ports=127.0.0.1:$2:8080" --env OMP_WAIT_POLICY=passive --env GOMP_SPINCOUNT=0 \
    "$image" "$1" "${ARGS[@]}"
}

# healthy ID PORT: waits until the server says so.
healthy() {
  local limit=$((SECONDS + 180))
  until curl -sf "http://127.0.0.1:$2/health" >/dev/null; do
    ctr task ls | grep -q "^$1 .*RUNNING" || { ctr task ls >&2; die "the server ended"; }
    [ $SECONDS -lt $limit ] || die "the server was not healthy within 180 s"
    sleep 0.1
  done
}
