"""How much each weight matters to a trained network's predictions: the diagonal of the Fisher information."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.training import Batches


@torch.enable_grad()
def diagonal_fisher(network: nn.Module, batches: Batches, *, generator: torch.Generator, replicas: Replicas) -> Tensor:
    """Estimate how much the predicted distribution changes with each weight: E[(d log p(y) / d w)^2], per image.

    y is drawn from the network's own prediction p, not taken from the labels. With the true labels (the "empirical"
    Fisher information), only the few training images that the network gets wrong would decide the result. A confident
    network seldom draws another label than its most likely one either, so a random direction with the same covariance
    replaces the drawn label (`random_direction`).

    It takes one image at a time, through the same autograd as training. torch.func.vmap over images is hardly faster on
    a CPU, and for one of timm's networks (efficientformer_l1) its gradients differ.

    Args:
        network: put into evaluation mode; its weights and `.grad` stay as they are.
        batches: the images of this replica; all replicas together need at least one. The labels are not used.
        generator: on the network's device, with another seed on each replica.
        replicas: the mean is taken over the images of all replicas, so that all get the same result.

    Returns:
        Float32 `(num_weights,)` on the network's device, in the order of `split_parameters`. Besides it, this takes
        the memory of one image's gradient.
    """
    network.eval()
    parameters = list(split_parameters(network).fixable.values())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    num_images = torch.zeros((), device=parameters[0].device)
    for images, _ in batches:
        for image in images:
            logits = network(image[None])
            direction = random_direction(logits.detach(), generator)
            gradients = torch.autograd.grad(logits, parameters, direction, allow_unused=True)
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:  # a layer that this network does not use
                    total.addcmul_(gradient, gradient)
        num_images += len(images)
    fisher = replicas.sum_(torch.cat([total.flatten() for total in sums]))
    return fisher.div_(replicas.sum_(num_images))


def random_direction(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw v with E[v v^T] = diag(p) - p p^T, p = softmax(logits), one per row of `(images, classes)`.

    That is the covariance of a drawn label, one_hot(y) - p, and the Hessian of the cross-entropy in the logits. From
    random signs s, v = sqrt(p) s - p <sqrt(p), s> has it without rare large values: on the pretrained CIFAR-10
    ResNet-20 with 256 images, the logarithm of the Fisher information is off by 0.44 (root mean square over weights)
    rather than by 1.4 with drawn labels.
    """
    p = logits.softmax(dim=1)
    signs = torch.randint(2, p.shape, generator=generator, device=p.device).mul(2).sub(1)
    signed = p.sqrt() * signs
    return signed - p * signed.sum(dim=1, keepdim=True)
