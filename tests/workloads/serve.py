"""A small inference server on a safetensors folder that maps the weights and does not copy them.

    python3 serve.py --model FOLDER [--host ADDRESS] [--port PORT]

FOLDER has config.json, tokenizer.json and model.safetensors of a llama architecture with weights in F32, which numpy's matrix products take as they lie.
Each tensor is a view into one read-only, shared mapping of the file, at the offsets of its header. (`safetensors.numpy.load_file` and `safe_open(...).get_tensor`
give arrays of their own: a second copy of the model in anonymous memory. Here the library checks the header, and no tensor goes through it.)

GET /health               200 once the model can answer, 503 before
GET /v1/models            what is served
POST /v1/completions      {"prompt": TEXT, "max_tokens": N}: the likeliest token each time, as temperature 0
"""
import argparse
import json
import mmap
import os
import signal
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from safetensors import safe_open
from tokenizers import Tokenizer

MAX_BODY = 1 << 20
MAX_HEADER = 100 << 20


class Weights:
    """The tensors of one safetensors file as views into a mapping of it."""

    def __init__(self, path):
        with safe_open(path, framework="numpy") as checked:
            names = set(checked.keys())
        with open(path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        (length,) = struct.unpack("<Q", self.map[:8])
        if length > MAX_HEADER:
            raise ValueError(f"{path}: a header of {length} bytes")
        header = json.loads(self.map[8 : 8 + length])
        header.pop("__metadata__", None)
        if set(header) != names:
            raise ValueError(f"{path}: the header does not have the tensors that the library sees")
        self.tensors = {}
        for name, entry in header.items():
            if entry["dtype"] != "F32":
                raise ValueError(f"{path}: {name} is {entry['dtype']}; only F32 can be used without a copy")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            view = np.frombuffer(self.map, dtype="<f4", count=count, offset=8 + length + entry["data_offsets"][0])
            self.tensors[name] = view.reshape(entry["shape"])

    def take(self, name, *shape):
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ValueError(f"the weights have no {name}")
        if tensor.shape != shape:
            raise ValueError(f"{name} is of shape {tensor.shape}, and the configuration says {shape}")
        # A view of what is mapped: neither its own memory nor writable.
        if tensor.flags.owndata or tensor.flags.writeable:
            raise ValueError(f"{name} was copied")
        return tensor


class Llama:
    """The forward pass, token by token, with a cache of keys and values."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        if config.get("model_type") != "llama":
            raise ValueError(f"model_type is {config.get('model_type')!r}, and this server knows llama only")
        self.width, inner = config["hidden_size"], config["intermediate_size"]
        self.heads, self.groups = config["num_attention_heads"], config["num_key_value_heads"]
        self.head = config.get("head_dim") or self.width // self.heads
        self.epsilon = np.float32(config["rms_norm_eps"])
        self.context = config["max_position_embeddings"]
        self.end = config["eos_token_id"]
        self.frequencies = config["rope_theta"] ** (-np.arange(0, self.head, 2, dtype=np.float64) / self.head)
        weights = Weights(os.path.join(folder, "model.safetensors"))
        take, words = weights.take, config["vocab_size"]
        self.embedding = take("model.embed_tokens.weight", words, self.width)
        self.output = self.embedding if config["tie_word_embeddings"] else take("lm_head.weight", words, self.width)
        self.norm = take("model.norm.weight", self.width)
        self.layers = []
        for number in range(config["num_hidden_layers"]):
            part = lambda name, *shape: take(f"model.layers.{number}.{name}.weight", *shape)  # noqa: E731
            self.layers.append(
                {
                    "attention_norm": part("input_layernorm", self.width),
                    "q": part("self_attn.q_proj", self.heads * self.head, self.width),
                    "k": part("self_attn.k_proj", self.groups * self.head, self.width),
                    "v": part("self_attn.v_proj", self.groups * self.head, self.width),
                    "o": part("self_attn.o_proj", self.width, self.heads * self.head),
                    "mlp_norm": part("post_attention_layernorm", self.width),
                    "gate": part("mlp.gate_proj", inner, self.width),
                    "up": part("mlp.up_proj", inner, self.width),
                    "down": part("mlp.down_proj", self.width, inner),
                }
            )

    def rms(self, x, weight):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon) * weight

    def rotate(self, x, positions):
        """Rotary embedding as transformers has it: the first half of a head with its second."""
        angles = np.outer(positions, self.frequencies)[:, None, :]
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def logits(self, tokens, cache):
        """Of the last of `tokens`, which follow what is in `cache`."""
        past = cache[0][0].shape[0] if cache else 0
        count = len(tokens)
        positions = np.arange(past, past + count)
        # Earlier tokens are seen by later ones, and not the other way round.
        unseen = np.arange(past + count)[None, :] > positions[:, None]
        x = self.embedding[tokens]
        for number, layer in enumerate(self.layers):
            y = self.rms(x, layer["attention_norm"])
            q = self.rotate((y @ layer["q"].T).reshape(count, self.heads, self.head), positions)
            k = self.rotate((y @ layer["k"].T).reshape(count, self.groups, self.head), positions)
            v = (y @ layer["v"].T).reshape(count, self.groups, self.head)
            if past:
                k, v = np.concatenate([cache[number][0], k]), np.concatenate([cache[number][1], v])
                cache[number] = (k, v)
            else:
                cache.append((k, v))
            repeat = self.heads // self.groups
            k, v = np.repeat(k, repeat, axis=1), np.repeat(v, repeat, axis=1)
            scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(np.sqrt(self.head))
            scores = np.where(unseen[None], np.float32(-np.inf), scores)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            x = x + np.einsum("hqk,khd->qhd", scores, v).reshape(count, -1) @ layer["o"].T
            y = self.rms(x, layer["mlp_norm"])
            gate = y @ layer["gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (y @ layer["up"].T)) @ layer["down"].T
        return self.rms(x[-1], self.norm) @ self.output.T

    def answer(self, prompt, limit):
        """The likeliest continuation, and whether the model ended it."""
        cache, said, tokens = [], [], prompt
        for _ in range(min(limit, self.context - len(prompt))):
            token = int(np.argmax(self.logits(tokens, cache)))
            if token == self.end:
                return said, "stop"
            said.append(token)
            tokens = [token]
        return said, "length"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        server = self.server
        if self.path == "/health":
            ready = server.model is not None
            return self.reply(200 if ready else 503, {"status": "ok" if ready else "loading model"})
        if self.path == "/v1/models":
            return self.reply(200, {"object": "list", "data": [{"id": server.name, "object": "model"}]})
        return self.reply(404, {"error": "no such path"})

    def do_POST(self):
        server = self.server
        if self.path != "/v1/completions":
            return self.reply(404, {"error": "no such path"})
        if server.model is None:
            return self.reply(503, {"error": "the model is being loaded"})
        try:
            length = int(self.headers["Content-Length"])
            if not 0 <= length <= MAX_BODY:
                raise ValueError("the body is too long")
            request = json.loads(self.rfile.read(length))
            prompt, limit = request["prompt"], request.get("max_tokens", 16)
            if not isinstance(prompt, str) or type(limit) is not int or limit < 1:
                raise ValueError("prompt is a text, and max_tokens a number from 1")
            tokens = server.tokenizer.encode(prompt).ids
            if not 0 < len(tokens) < server.model.context:
                raise ValueError(f"the prompt has {len(tokens)} tokens of at most {server.model.context - 1}")
        except (ValueError, KeyError, TypeError) as error:
            self.close_connection = True
            return self.reply(400, {"error": f"bad request: {error}"})
        with server.turn:
            said, reason = server.model.answer(tokens, limit)
        text = server.tokenizer.decode(said, skip_special_tokens=True)
        return self.reply(
            200,
            {
                "object": "text_completion",
                "model": server.name,
                "choices": [{"index": 0, "text": text, "finish_reason": reason}],
                "usage": {"prompt_tokens": len(tokens), "completion_tokens": len(said)},
            },
        )

    def reply(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: a line for each request would tell the host when somebody asks."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=os.environ.get("MODEL_PATH"), help="the folder; else $MODEL_PATH")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    if not arguments.model:
        parser.error("--model or MODEL_PATH is needed")
    # The port is there first: who asks meanwhile learns that the model is not ready.
    server = ThreadingHTTPServer((arguments.host, arguments.port), Handler)
    server.daemon_threads = True
    server.model, server.tokenizer, server.turn = None, None, threading.Lock()
    server.name = os.path.basename(os.path.normpath(arguments.model))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        server.tokenizer = Tokenizer.from_file(os.path.join(arguments.model, "tokenizer.json"))
        model = Llama(arguments.model)
        # One token ahead of all others: every page of the mapping is there, and the first client does not wait for it.
        model.logits([server.tokenizer.token_to_id("<s>") or 0], [])
    except (OSError, ValueError, KeyError) as error:
        print(f"{arguments.model}: {error}", file=sys.stderr)
        return 1
    server.model = model
    print(f"serving {server.name} on port {arguments.port}", flush=True)
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
