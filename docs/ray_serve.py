"""Several replicas of `qrhead serve`'s application, on one machine or many, with Ray Serve.

Copy this file, change the constants in capitals, and start it: `serve run ray_serve:application`. Every replica has its
own model, queue and metrics. Ray gives a replica no more requests than its queue accepts, so that one replica does not
refuse what another has room for. Up to `max_queued_requests` others wait in Ray's proxy.
"""

from fastapi import FastAPI
from ray import serve

from qr_core import QRScorer
from qr_core.server import ApiKeys, Settings, create_app

MODEL, HEADS = None, None  # "meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct/lme"; None is the embedded model
REPLICAS, GPUS = 2, 0  # GPUs of each replica
QUEUE = 16


def build() -> FastAPI:
    """The application. Runs once in every replica."""
    keys = ApiKeys()  # ApiKeys.load() where others can reach it: reads QRHEAD_API_KEYS
    scorer = QRScorer.from_pretrained(MODEL, heads=HEADS, device="cuda" if GPUS else "cpu")
    return create_app(scorer, Settings(keys=keys, max_queue=QUEUE))


@serve.deployment(
    num_replicas=REPLICAS,
    max_ongoing_requests=QUEUE,
    max_queued_requests=4 * QUEUE,
    ray_actor_options={"num_cpus": 1, "num_gpus": GPUS},
    graceful_shutdown_timeout_s=30,
)
@serve.ingress(build)
class QRHead:
    """A replica."""


application = QRHead.bind()
