"""A real engine, offline: llama.cpp's own HTTP server around the tiny model of `tiny_model.py`.

Prints one line, `engine listening on http://127.0.0.1:PORT pid PID`, and ends on SIGTERM or SIGINT.
"""

import argparse
import os
import signal
import tempfile
import threading
from pathlib import Path

import tiny_model
import xllamacpp


def parameters(model, arguments):
    """Returns llama.cpp's settings. Every slot may use the whole context; threads that compute together would wait
    for each other, which takes long on a busy machine, so there is one."""
    common = xllamacpp.CommonParams()
    common.model.path = str(model)
    common.model_alias = {arguments.alias}
    common.hostnames = ["127.0.0.1"]
    common.port = arguments.port
    common.api_keys = arguments.api_key
    common.n_parallel = arguments.parallel
    common.n_ctx = tiny_model.CONTEXT
    common.kv_unified = True
    common.embedding = True
    common.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    common.use_jinja = True
    common.endpoint_slots = True
    common.endpoint_metrics = True
    common.n_gpu_layers = 0
    common.cpuparams.n_threads = 1
    common.cpuparams_batch.n_threads = 1
    common.warmup = False
    common.fit_params = False
    # The server keeps a thread for each open request: the suites open 100 at once.
    common.n_threads_http = 160
    return common


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 lets the kernel choose")
    parser.add_argument("--alias", default="tiny", help="the model's name")
    parser.add_argument("--parallel", type=int, default=8, help="requests computed at once")
    parser.add_argument("--api-key", action="append", default=[])
    arguments = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="sealgate-engine-") as directory:
        model = Path(directory, "tiny.gguf")
        tiny_model.write(model)
        server = xllamacpp.Server(parameters(model, arguments))
    print(f"engine listening on {server.listening_address} pid {os.getpid()}", flush=True)
    stop.wait()


if __name__ == "__main__":
    main()
