"""Networks of a model folder with its weights: from `weights.safetensors` beside the graphs, else read out of these."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nacre.core.errors import BundleError, NacreError, UsageError
from nacre.model.bundle import Bundle
from nacre.train.bottlenecks.base import Bottleneck
from nacre.train.nets.codec_net import CodecNet, Decoder, Encoder
from nacre.train.recipe import parse

FILE = "weights.safetensors"
GRAPHS = {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}
MOST_BYTES = 512 << 20
NEXT = "pip install onnx, or save_pretrained() the model where it is installed"


class Networks(nn.Module):
    """Encoder and decoder, and what of the training bottleneck stands between them and the codec's quantiser."""

    encoder: Encoder
    decoder: Decoder
    bottleneck: Bottleneck

    def __init__(self, net: CodecNet):
        super().__init__()
        self.encoder, self.decoder = net.encoder, net.decoder
        changes = type(net.quantiser).bypass is not Bottleneck.bypass  # a kind whose latents are not what goes in
        self.bottleneck = net.quantiser if changes else Bottleneck()


def networks_of(bundle: Bundle) -> Networks:
    """The networks of a model, on the CPU. Raises BundleError, and UsageError where a package is missing."""
    net = _empty(bundle)
    path = bundle.part(FILE)
    if not path.is_file():
        return _from_graphs(bundle, net)
    networks = Networks(net)
    try:
        networks.load_state_dict(_stored(bundle, path))
    except RuntimeError as error:
        raise BundleError(f"{path} does not hold the weights of this model: {str(error)[:200]}") from error
    return networks


def save(networks: Networks, bundle: Bundle, folder: Path) -> None:
    """A copy of the model folder with the weights in it. Raises UsageError unless `folder` is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is a file or a folder that is not empty; give a new folder")
    shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in networks.state_dict().items()}
    save_file(tensors, folder / FILE, {"graphs": json.dumps(_graphs(bundle))})


def _graphs(bundle: Bundle) -> dict[str, str]:
    """Hashes of the graphs that the weights are those of."""
    return {name: bundle.facts.hashes[name] for name in GRAPHS.values()}


def _empty(bundle: Bundle) -> CodecNet:
    """Networks of the sizes of a model. Raises BundleError where it does not say them."""
    try:
        recipe = parse(bundle.facts.training["recipe"], earlier=True)
        return CodecNet(bundle.config, recipe.net, recipe.kind, recipe.quantiser)
    except (KeyError, TypeError, NacreError) as error:
        place = f"training.recipe of {bundle.folder}/model.json"
        raise BundleError(f"{place} does not give the sizes of its networks: {repr(error)[:120]}") from error


def _stored(bundle: Bundle, path: Path) -> dict[str, Tensor]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BundleError(f"{path} is larger than {MOST_BYTES >> 20} MB, which no weights of a model are")
        with safe_open(path, "pt") as file:
            graphs = json.loads((file.metadata() or {}).get("graphs", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as weights: {str(error)[:200]}; copy the model again") from error
    if graphs != _graphs(bundle):
        raise BundleError(f"{path} holds weights of other graphs than this model has; remove it")
    return tensors


def _from_graphs(bundle: Bundle, net: CodecNet) -> Networks:
    learns = any(True for _ in net.quantiser.parameters())
    changed = learns and type(net.quantiser).to_latent is not Bottleneck.to_latent
    try:
        from nacre.torch.graph import fill, fill_folded

        for part, name in GRAPHS.items():
            if changed and not (net.quantiser.folded and fill_folded(net.quantiser, part, bundle.part(name))):
                kind = bundle.quantiser().name
                raise BundleError(f"model {bundle.name} has no {FILE}, without which kind {kind} cannot be read")
            if not fill(getattr(net, part), part, bundle.part(name)):
                from nacre.train.start import read_graph

                read_graph(net, part, bundle.part(name))
    except ImportError as error:
        raise UsageError(f"model {bundle.name} has no {FILE}, and {error.name} is not installed; {NEXT}") from error
    return Networks(net)
