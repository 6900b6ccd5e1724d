"""A sealed model by means of Google's Tink and Python's own library alone: nothing of Cella's is used.

  tink_model.py seal FOLDER LAYOUT KEK NAME VERSION KID    makes an OCI layout
  tink_model.py open LAYOUT KEK NAME VERSION FOLDER        opens one into a folder
"""
import base64, hashlib, io, json, os, pathlib, struct, sys

import tink
from tink import aead, json_proto_keyset_format, secret_key_access, streaming_aead

ENC = "org.opencontainers.image.enc."
PROVIDER, PUBOPTS = ENC + "keys.provider.attestation-agent", ENC + "pubopts"
MODEL = "application/vnd.cncf.model."
BLAKE3 = "dev.cella.model.blake3"


def b64(data):
    return base64.b64encode(data).decode()


def keyset(kind, value):
    key = {"keyData": {"typeUrl": "type.googleapis.com/google.crypto.tink." + kind, "value": b64(value), "keyMaterialType": "SYMMETRIC"},
           "status": "ENABLED", "keyId": 1, "outputPrefixType": "RAW"}
    return json_proto_keyset_format.parse(json.dumps({"primaryKeyId": 1, "key": [key]}), secret_key_access.TOKEN)


def streaming(main_key):
    # params { ciphertext_segment_size: 1048576, derived_key_size: 32, hkdf_hash_type: SHA256 }, key_value
    value = bytes.fromhex("1208088080401020" "1803" "1a20") + main_key
    return keyset("AesGcmHkdfStreamingKey", value).primitive(streaming_aead.StreamingAead)


def wrapping(kek):
    return keyset("AesGcmKey", bytes.fromhex("1a20") + kek).primitive(aead.Aead)


def place(name, path, version):
    out = b"cella-seal-v1"
    for field in (name.encode(), path.encode(), struct.pack(">Q", version)):
        out += struct.pack(">I", len(field)) + field
    return out


class Kept(io.BytesIO):
    """Tink closes what it writes to."""
    def close(self):
        self.kept = self.getvalue()
        super().close()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def seal(folder, layout, kek, name, version, kid):
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data, media_type):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    layers, diff_ids = [], []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        inside, plain, main_key = str(path.relative_to(folder)), path.read_bytes(), os.urandom(32)
        out = Kept()
        with streaming(main_key).new_encrypting_stream(out, place(name, inside, version)) as stream:
            stream.write(plain)
        private = json.dumps({"symkey": b64(main_key), "digest": digest(plain), "cipheroptions": {}}).encode()
        wrapped = wrapping(kek).encrypt(private, b"")
        packet = {"kid": kid, "wrapped_data": b64(wrapped[12:]), "iv": b64(wrapped[:12]), "wrap_type": "A256GCM"}
        kind = "weight" if inside.endswith((".gguf", ".safetensors")) else "weight.config"
        layer = put(out.kept, f"{MODEL}{kind}.v1.raw+encrypted")
        layer["annotations"] = {
            "org.cncf.model.filepath": inside,
            PROVIDER: b64(json.dumps(packet).encode()),
            PUBOPTS: b64(b'{"cipher":"AES256_GCM_HKDF_1MB","hmac":"","cipheroptions":{}}'),
        }
        layers.append(layer)
        diff_ids.append(digest(plain))
    config = {"descriptor": {}, "config": {"format": "gguf"}, "modelfs": {"type": "layers", "diffIds": diff_ids}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": MODEL + "manifest.v1+json",
                "config": put(json.dumps(config).encode(), MODEL + "config.v1+json"), "layers": layers,
                "annotations": {"dev.cella.model.name": name, "dev.cella.model.version": str(version)}}
    entry = put(json.dumps(manifest).encode(), manifest["mediaType"])
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def open_model(layout, kek, name, version, folder):
    def blob(descriptor):
        data = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert digest(data) == descriptor["digest"] and len(data) == descriptor["size"]
        return data

    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]))
    check_modelpack(manifest, json.loads(blob(manifest["config"])))
    diff_ids = json.loads(blob(manifest["config"]))["modelfs"]["diffIds"]
    for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True):
        notes = layer["annotations"]
        assert json.loads(base64.b64decode(notes[PUBOPTS])) == {"cipher": "AES256_GCM_HKDF_1MB", "hmac": "", "cipheroptions": {}}
        packet = json.loads(base64.b64decode(notes[PROVIDER]))
        private = json.loads(wrapping(kek).decrypt(base64.b64decode(packet["iv"]) + base64.b64decode(packet["wrapped_data"]), b""))
        inside = notes["org.cncf.model.filepath"]
        source = io.BytesIO(blob(layer))
        with streaming(base64.b64decode(private["symkey"])).new_decrypting_stream(source, place(name, inside, version)) as stream:
            plain = stream.read()
        assert digest(plain) == diff_id == private["digest"]
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(plain)


def check_modelpack(manifest, config):
    """Only what ModelPack 0.0.7 knows and Cella's own annotations, all that it demands."""
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == MODEL + "manifest.v1+json" and manifest["config"]["mediaType"] == MODEL + "config.v1+json"
    assert set(config) == {"descriptor", "config", "modelfs"}
    assert set(config["descriptor"]) <= {"createdAt", "authors", "vendor", "family", "name", "version", "title", "description", "docURL",
                                         "sourceURL", "revision", "licenses"}
    assert set(config["config"]) <= {"architecture", "format", "paramSize", "precision", "quantization", "capabilities"}
    assert all(isinstance(value, str) and value for value in config["config"].values())
    assert set(config["modelfs"]) == {"type", "diffIds"} and config["modelfs"]["type"] == "layers"
    assert len(config["modelfs"]["diffIds"]) == len(manifest["layers"]) >= 1
    for layer in manifest["layers"]:
        assert layer["mediaType"].removeprefix(MODEL).removesuffix("+encrypted") in ("weight.v1.raw", "weight.config.v1.raw", "doc.v1.raw")
        assert set(layer["annotations"]) - {BLAKE3} == {"org.cncf.model.filepath", PROVIDER, PUBOPTS}


def main():
    streaming_aead.register()
    aead.register()
    command, args = sys.argv[1], sys.argv[2:]
    if command == "seal":
        folder, layout, kek, name, version, kid = args
        seal(pathlib.Path(folder), pathlib.Path(layout), pathlib.Path(kek).read_bytes(), name, int(version), kid)
    elif command == "open":
        layout, kek, name, version, folder = args
        open_model(pathlib.Path(layout), pathlib.Path(kek).read_bytes(), name, int(version), pathlib.Path(folder))
    else:
        sys.exit(__doc__)


main()
