"""Exports a compressed network as a small file, checked by loading it again.

pwfn export --study digits --trial 0007 --out model.pwfn.safetensors
pwfn export --state-dict clustered.pth --model resnet18 --out model.pwfn.safetensors
pwfn export --state-dict clustered.pth --out weights.pwfn.safetensors     any state dict, not built
pwfn export model.pwfn.safetensors --onnx model.onnx                      convert an exported file
pwfn export model.pwfn.safetensors --safetensors plain.safetensors

Load it with `pwfn.load("model.pwfn.safetensors")`; docs/format.md gives the byte layout.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pwfn.commands.options import add_data_options, add_device_options, at_least, data_from, device_from

NETWORK_OPTIONS = {
    "--num-classes": "classes (default: rows of the classifier)",
    "--in-channels": "channels of the images (default: those of the first convolution)",
    "--image-size": "side of the images in pixels (default: the network's own)",
}


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", type=Path, metavar="FILE", help="an exported file, to convert")
    what.add_argument("--trial", metavar="ID", help="a complete trial of --study")
    what.add_argument("--state-dict", type=Path, metavar="FILE", help="a .safetensors or .pth state dict of any tool")
    parser.add_argument("--study", help="the trial's study")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--model", metavar="NAME", help="architecture of --state-dict, in timm's registry or ours")
    parser.add_argument("--ema", action="store_true",
                        help="of --state-dict with raw weights and their moving average: the average")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="by convention *.pwfn.safetensors")
    parser.add_argument("--rest-dtype", choices=["float32", "float16", "bfloat16"], default="float32",
                        help="of all outside the fixed set: norms, tokens, statistics (default: float32)")  # fmt: skip
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="also write FILE.onnx and FILE.dense.onnx")
    parser.add_argument("--safetensors", type=Path, metavar="FILE", help="convert FILE to plain safetensors")
    network = parser.add_argument_group("network", "--state-dict with --model: what is found out otherwise")
    for name, what_it_is in NETWORK_OPTIONS.items():
        network.add_argument(name, type=at_least(1), metavar="N", help=what_it_is)
    network.add_argument("--model-kwargs", nargs="+", default=[], metavar="NAME=VALUE",
                         help="further arguments of the network, e.g. patch_size=4")  # fmt: skip
    add_data_options(parser, "--state-dict with --model: measure on these test images")
    add_device_options(parser)
    parsed = parser.parse_args(arguments)
    if (parsed.trial is None) != (parsed.study is None):
        parser.error("--study and --trial go together")
    if parsed.file is not None and (parsed.out or not (parsed.onnx or parsed.safetensors)):
        parser.error("FILE is converted: give --onnx or --safetensors, and no --out")
    if parsed.file is None and (parsed.out is None or parsed.safetensors):
        parser.error("--out is missing" if parsed.out is None else "--safetensors goes with FILE")
    if parsed.ema and parsed.state_dict is None:
        parser.error("--ema goes with --state-dict")
    own = [parsed.num_classes, parsed.in_channels, parsed.image_size, *parsed.model_kwargs]
    if not parsed.model and any(own):
        parser.error(f"{', '.join(NETWORK_OPTIONS)} and --model-kwargs go with --model")
    if parsed.trial is not None and (parsed.model or parsed.data or parsed.data_root):
        parser.error("--model and --data go with --state-dict: a trial has its own")
    if parsed.state_dict and not parsed.model and (parsed.onnx or parsed.data or parsed.data_root):
        parser.error("--onnx and --data need --model: a network to run")
    return parsed


def run(options: argparse.Namespace) -> int:
    """Export and print the report."""
    from pwfn.export.checkpoint import Given, parse_kwargs
    from pwfn.export.command import Target, export_checkpoint, export_state, export_trial
    from pwfn.export.conversion import convert
    from pwfn.export.report import format_lines
    from pwfn.results.store import ResultsStore

    if options.file is not None:
        lines = convert(options.file, onnx=options.onnx, safetensors=options.safetensors)
        print(format_lines([("file", str(options.file)), *lines]))
        return 0
    target = Target(
        options.out,
        rest_dtype=options.rest_dtype,
        onnx=options.onnx,
        device=device_from(options),
        batch_size=options.batch_size,
    )
    if options.trial is not None:
        store = ResultsStore(options.results, options.study)
        lines = export_trial(store, options.trial.zfill(4) if options.trial.isdecimal() else options.trial, target)
    elif options.model is not None:
        kwargs = parse_kwargs(options.model_kwargs)
        given = Given(options.num_classes, options.in_channels, options.image_size, kwargs, options.ema)
        lines = export_checkpoint(options.state_dict, options.model, target, data_from(options), given)
    else:
        lines = export_state(options.state_dict, target, ema=options.ema)
    print(format_lines([("file", str(options.out)), *lines]))
    return 0
