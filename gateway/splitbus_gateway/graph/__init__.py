"""Cuts any ONNX model into slices: reads the graph, finds the cuts, takes slices out, and checks them."""

from splitbus_gateway.graph.codec_nodes import CODECS, wire_tensors
from splitbus_gateway.graph.cuts import Cut, UsefulCuts, all_cuts, cut_at, legal_cuts, useful_cuts
from splitbus_gateway.graph.feeds import load_feed, random_feed
from splitbus_gateway.graph.mincut import Dag, Hop, Partition, Tensor, best_partition, partition
from splitbus_gateway.graph.model import ModelGraph, load_graph
from splitbus_gateway.graph.slices import SliceGraph, extract
from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_gateway.graph.verify import CutCheck, cut_tolerance, open_slice, verify
from splitbus_gateway.graph.weights import ModelFile, Weight

__all__ = [
    "CODECS",
    "Cut",
    "CutCheck",
    "Dag",
    "Hop",
    "ModelFile",
    "ModelGraph",
    "Partition",
    "SliceGraph",
    "Tensor",
    "TensorSpec",
    "UsefulCuts",
    "Weight",
    "all_cuts",
    "best_partition",
    "cut_at",
    "cut_tolerance",
    "extract",
    "legal_cuts",
    "load_feed",
    "load_graph",
    "open_slice",
    "partition",
    "random_feed",
    "useful_cuts",
    "verify",
    "wire_tensors",
]
