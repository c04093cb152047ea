"""The codec as a torch module: batches, masks, gradients, any device. Needs torch; nothing else of nacre needs this."""

from nacre.torch.codec import Encoded, NacreCodec, Quantised, Reconstruction
from nacre.torch.processor import Features, NacreProcessor

__all__ = ["Encoded", "Features", "NacreCodec", "NacreProcessor", "Quantised", "Reconstruction"]
