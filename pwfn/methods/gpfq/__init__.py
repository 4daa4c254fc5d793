"""Greedy path-following quantisation (GPFQ), layer by layer, and its memoryless baseline MSQ with the same alphabets.

The paper: Lybrand & Saab, A greedy algorithm for quantizing neural networks (JMLR 2021, arXiv 2010.15979). The
follow-up: Zhang, Zhou & Saab, Post-training quantization for neural networks with provable guarantees (arXiv
2201.11113).
"""
