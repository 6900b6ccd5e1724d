"""Opens a model sealed by the load benchmark with Google's Tink, as a program in Python would: tink_open.py SEALED PLAIN."""
import struct
import sys


from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import tink_pb2

KEY = bytes([7]) * 32


def place(name: str, path: str, version: int) -> bytes:
    field = lambda data: struct.pack(">I", len(data)) + data
    return b"cella-seal-v1" + field(name.encode()) + field(path.encode()) + field(struct.pack(">Q", version))


def primitive():
    # AesGcmHkdfStreamingKey: segments of 1 MiB, 32 bytes of derived key, HKDF with SHA-256.
    value = bytes.fromhex("120808808040102018031a20") + KEY
    keyset = tink_pb2.Keyset(primary_key_id=1)
    key = keyset.key.add(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
    key.key_data.type_url = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"
    key.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    key.key_data.value = value
    handle = proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


def main() -> None:
    streaming_aead.register()
    sealed, plain = sys.argv[1:]
    with open(sealed, "rb") as source, open(plain, "wb") as out:
        with primitive().new_decrypting_stream(source, place("bench", "model.gguf", 1)) as stream:
            while chunk := stream.read(1 << 20):
                out.write(chunk)


main()
