"""Exports a compressed network as a small file, checked by loading it again.

pwfn export --study digits --trial 0007 --out model.pwfn.safetensors
pwfn export --state-dict clustered.pth --model resnet18 --out model.pwfn.safetensors
pwfn export --state-dict clustered.pth --out weights.pwfn.safetensors     any state dict, not built

Load it with `pwfn.load("model.pwfn.safetensors")`; docs/format.md gives the byte layout.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pwfn.commands.options import add_data_options, add_device_options, data_from, device_from


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--trial", metavar="ID", help="a complete trial of --study")
    what.add_argument("--state-dict", type=Path, metavar="FILE", help="a .safetensors or .pth state dict of any tool")
    parser.add_argument("--study", help="the trial's study")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--model", metavar="NAME", help="architecture of --state-dict, in timm's registry or ours")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="by convention *.pwfn.safetensors")
    parser.add_argument("--rest-dtype", choices=["float32", "float16", "bfloat16"], default="float32",
                        help="of all outside the fixed set: norms, tokens, statistics (default: float32)")  # fmt: skip
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="also write FILE.onnx and FILE.dense.onnx")
    add_data_options(parser, "--state-dict with --model: measure on these test images")
    add_device_options(parser)
    parsed = parser.parse_args(arguments)
    if (parsed.trial is None) != (parsed.study is None):
        parser.error("--study and --trial go together")
    if parsed.trial is not None and (parsed.model or parsed.data or parsed.data_root):
        parser.error("--model and --data go with --state-dict: a trial has its own")
    if parsed.state_dict and not parsed.model and (parsed.onnx or parsed.data or parsed.data_root):
        parser.error("--onnx and --data need --model: a network to run")
    return parsed


def run(options: argparse.Namespace) -> int:
    """Export and print the report."""
    from pwfn.export.command import Target, export_checkpoint, export_state, export_trial
    from pwfn.export.report import format_lines
    from pwfn.results.store import ResultsStore

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
        lines = export_checkpoint(options.state_dict, options.model, target, data_from(options))
    else:
        lines = export_state(options.state_dict, target)
    print(format_lines([("file", str(options.out)), *lines]))
    return 0
