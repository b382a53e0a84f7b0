"""Every limit of the wire, with its reason. Checked before anything is allocated."""

from typing import Final

WIRE_VERSION: Final = 1
"""In topics (`splitbus/v1`) and in every packet and message."""

MAX_PACKET_BYTES: Final = 64 * 2**20
"""A 4K float32 RGB input is 95 MB and has no business on a bus; the largest activation met so far is 10 MB."""

MAX_HEADER_BYTES: Final = 64 * 2**10
"""A job with 64 tensors, 8 stages and 8 timings has 9 kB of header."""

MAX_HEADER_ITEMS: Final = 256
"""Entries of one list or map in a header: msgpack makes room for as many as are announced, before they are there."""

MAX_TENSORS: Final = 64
"""Dense graphs keep some twenty tensors alive at once."""

MAX_RANK: Final = 8
"""onnxruntime's transposes and reductions are slow or absent beyond."""

MAX_TENSOR_BYTES: Final = MAX_PACKET_BYTES
"""Decoded size, of one tensor and of all tensors of a packet together; what stops a bomb of 2 GB of zeros."""

MAX_TABLES_BYTES: Final = 4 * 2**20
"""The statistics of a tensor's coefficients: one byte for each, before compression."""

MAX_PICTURE_SIDE: Final = 16_383
"""Of a tensor coded as JPEG or WebP: WebP has 14 bits for it."""

MAX_STAGES: Final = 8
"""Three tiers are three; a chain of eight is already slower than any link is fast."""

MAX_SPENT: Final = MAX_STAGES + 1
"""Timings in a packet: one for each stage, and the device's own."""

MAX_NAME_BYTES: Final = 512
"""Tensor names of exported models carry module paths; 300 bytes have been seen."""

MAX_ID_BYTES: Final = 64
"""Node, device, model and site ids; hosted brokers cap topics at 200 bytes."""

MAX_TOPIC_BYTES: Final = 200
"""The lowest limit among hosted brokers."""

MAX_WORD_BYTES: Final = 32
"""A dtype, a coding, the reason of a refusal."""

MAX_INTEGER: Final = 2**63 - 1
"""Counters and durations: a signed 64-bit integer in every language."""

MAX_TERM: Final = 10**12
"""Of gateways; with a million epochs each, all epochs are integers."""

MAX_LEASE_SECONDS: Final = 3600.0
"""Nobody wants to wait so long for the second gateway."""

MAX_TEXT_BYTES: Final = 1024
"""A reason or an explanation inside a binary header."""

MAX_PARTS: Final = 1024
"""64 MiB in parts of 64 kB."""

MAX_PARTIAL_PACKETS: Final = 8
"""Packets under reassembly for one topic; a sender has at most a window of four in flight."""

MAX_PARTIAL_BYTES: Final = 2 * MAX_PACKET_BYTES
"""Bytes that have arrived of them: one packet of the largest size, and another that overtakes it."""

PARTIAL_SECONDS: Final = 10.0
"""A part that waits longer than any deadline will never be answered in time."""

TRAIN_HEAD_BYTES: Final = 256
"""The first part of a train: small, so that its arrival marks the start of the rest."""

TRAIN_MIN_BYTES: Final = 4 * 2**10
"""Below this a train is over within a scheduler tick and its duration is noise."""

MAX_MILLISECONDS: Final = 1e9
"""A duration in a control message: eleven days, so that sums of them stay finite."""

MIN_MBIT: Final = 1e-6
"""One bit a second; a link slower than that is none."""

MAX_MBIT: Final = 1e9
"""A petabit a second; more is a measurement gone wrong."""

MAX_JSON_BYTES: Final = 1 * 2**20
"""A control message; a plan has 3 kB, a profile of 500 blocks 40 kB."""

SIGNATURE_BYTES: Final = 88
"""An Ed25519 signature, which has 64 bytes, in base64."""

MAX_SEAL_KEYS: Final = 2
"""Of a node in the list of keys: the one that it has, and the one that it is being given."""

MAX_SEALED_NODES: Final = 4096
"""In the list of keys: 0.6 MB of JSON."""

MAX_BLOB_BYTES: Final = 16 * 2**30
"""A weight or model file; larger ones do not run on these machines."""

BLOB_CHUNK_BYTES: Final = 64 * 2**10
"""One blob answer: small enough that a plan waits 10 ms behind it at 50 Mbit/s, and for brokers that take 128 kB."""

MAX_BATCH: Final = 64
"""Frames that a node runs as one; cameras send one at a time, and a worker that waited for more would be late."""
