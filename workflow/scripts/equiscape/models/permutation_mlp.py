"""A multilayer perceptron whose layers carry permutation representations of a finite group.

After Xie & Smidt 2025 (arXiv 2506.02269): the equivariant networks of one hidden representation
are a linear subspace (a *plane*) of all perceptrons of that width. So one architecture serves the
network that is held on its plane, the one that is released from it, and the plain perceptron.
"""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.groups import parse_group, parse_representation
from equiscape.groups.plane import Plane
from equiscape.settings import AtLeast, Fraction, Names, NonNegative, Positive

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


class PermutationMLP(nn.Module):
    """``W_L s(... s(W_1 x + b_1) ...)`` between representations of a group.

    It starts on the plane of its representations, but for mode ``free``. Training keeps it there
    or lets it go, see :class:`equiscape.training.plane.PlaneKeeper`; the network itself is the same
    perceptron in every mode.

    Args:
        group: such as ``S3``.
        inputs, outputs: representations of the input and the output.
        dtype: of the parameters, ``float64`` or ``float32``.
        hidden: the representation of each hidden layer, such as ``["2 natural + trivial"]``.
        activation: ``tanh``, ``relu`` or ``silu``; each acts entry by entry, so commutes with
            permutations.
        output_bias: whether the last layer has a bias.
        scale: of the initial weights; entries have standard deviation ``scale / sqrt(fan in)``.
        mode: ``constrained`` (held on the plane), ``free`` (a perceptron from the start) or
            ``relaxed`` (held, then released).
        release: of mode ``relaxed``, the share of the training steps after which it is released.
        noise: of mode ``relaxed``, added on the release: the standard deviation relative to the
            root mean square of the parameters.
        penalty: of mode ``relaxed``; where positive, the network is not held but pulled back by
            the gradient of ``penalty / 2 |theta - P theta|^2``, whose weight falls linearly to zero
            at ``release``; the noise is then added before the first step.
    """

    non_hidden: tuple[str, ...] = ()  # each of its matrices is what the study is about

    def __init__(
        self,
        *,
        group: str,
        inputs: str,
        outputs: str,
        dtype: Literal["float32", "float64"] = "float64",
        hidden: Annotated[list[str], AtLeast(1), Names("representations")] = ("regular",),  # type: ignore[assignment]
        activation: Literal["tanh", "relu", "silu"] = "tanh",
        output_bias: bool = False,
        scale: Positive = 1.0,
        mode: Literal["constrained", "free", "relaxed"] = "constrained",
        release: Fraction = 0.5,
        noise: NonNegative = 0.0,
        penalty: NonNegative = 0.0,
    ):
        super().__init__()
        self.mode, self.release, self.noise, self.penalty = mode, release, noise, penalty
        self.group = parse_group(group)
        self.layer_representations = [
            parse_representation(self.group, inputs, "datasets.inputs"),
            *(parse_representation(self.group, text, "model.hidden") for text in hidden),
            parse_representation(self.group, outputs, "datasets.outputs"),
        ]
        biases = [True] * len(hidden) + [output_bias]
        self.plane = Plane.of_layers(self.layer_representations, biases)
        widths = [representation.width for representation in self.layer_representations]
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=bias, dtype=getattr(torch, dtype))
            for a, b, bias in zip(widths, widths[1:], biases)
        )
        self.activation_name = activation
        self.activation = ACTIVATIONS[activation]()
        self._initialize(scale)

    @torch.no_grad()
    def _initialize(self, scale: float) -> None:
        """Draw every entry, or in the held modes every orbit, from the same normal law."""
        for name, parameter in self.named_parameters():
            layer: Any = self.layers[int(name.split(".")[1])]
            std = scale / layer.in_features**0.5
            if self.mode == "free":
                drawn = torch.randn(parameter.shape, dtype=torch.float64)
            else:
                drawn = self.plane.draw(name)
            parameter.copy_(std * drawn)

    def representations(self) -> dict[str, nn.Module]:
        """Every layer's ``[size, width]`` before its activation; the last is the output."""
        return {f"layers.{i}": layer for i, layer in enumerate(self.layers)}

    def symmetries(self, held: bool | None = None) -> tuple[sym.Symmetry, ...]:
        """Of each hidden layer: orders of its units, signs for tanh, scales for ReLU; complete.

        Args:
            held: only those that keep every network of the plane on it: orders that commute with
                the layer's representation, and one sign or scale an orbit of units. None: in mode
                ``constrained``.
        """
        found: list[sym.Symmetry] = []
        held = self.mode == "constrained" if held is None else held
        for i, representation in enumerate(self.layer_representations[1:-1]):
            writers, readers = sym.rows(f"layers.{i}"), sym.columns(f"layers.{i + 1}", 0)
            action = representation.action.tolist()
            found.append(
                sym.permutation(
                    f"layers.{i} neurons",
                    representation.width,
                    [*writers, *readers],
                    signed=self.activation_name == "tanh",
                    action=action if held else (),
                )
            )
            if self.activation_name == "relu":
                own = f"layers.{i} neuron scale", "neuron scale", representation.width
                whole = sym.scale(*own, writers, readers)
                found.append(whole.tied(self.plane.labels[f"layers.{i}.bias"]) if held else whole)
        return tuple(found)

    def forward(self, x: Tensor) -> Tensor:
        """``[size, width of the input]`` to ``[size, width of the output]``."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)
