"""Greedy path-following quantisation (GPFQ) of one layer after the other, and the alphabets it shares with MSQ.

Lybrand & Saab, A greedy algorithm for quantizing neural networks (JMLR 2021), and Zhang, Zhou & Saab, Post-training
quantization for neural networks with provable guarantees (arXiv 2201.11113, the "follow-up" below).
"""
