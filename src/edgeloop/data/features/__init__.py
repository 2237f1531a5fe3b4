"""Feature pipelines: raw sensor window in, model input out, described by a JSON-able record.

A program carries the record of the pipeline that its model was trained with. The loop rebuilds
the pipeline from its own configuration and compares the two records, so that training and
serving cannot disagree.
"""

from edgeloop.data.features.base import Features
from edgeloop.data.features.chain import Chain
from edgeloop.data.features.envelope import Envelope
from edgeloop.data.features.image import Image
from edgeloop.data.features.kinds import KINDS, differences, from_spec
from edgeloop.data.features.log_mel import LogMel
from edgeloop.data.features.mfcc import Mfcc
from edgeloop.data.features.normalise import Normalise
from edgeloop.data.features.shape import Crop, Identity, Place, Reshape, Scale, Transpose
from edgeloop.data.features.spectra import Fft, Psd
from edgeloop.data.features.statistics import Statistics

__all__ = [
    "KINDS", "Chain", "Crop", "Envelope", "Features", "Fft", "Identity", "Image", "LogMel", "Mfcc",
    "Normalise", "Place", "Psd", "Reshape", "Scale", "Statistics", "Transpose", "differences",
    "from_spec",
]  # fmt: skip
