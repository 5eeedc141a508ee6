"""Probabilistic inference with language models: programs as particles, weights that are right.

`Model` and `smc_standard` run a program as many weighted particles; `processors.lm.LMContext` is the text in a program.
Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.inference.chunks import (
        sample_word,
        sample_word_2,
    )
    from processors.inference.distributions import (
        Bernoulli,
        Geometric,
        LogCategorical,
        TokenCategorical,
        Transformer,
    )
    from processors.inference.history import (
        History,
    )
    from processors.inference.laws import (
        assert_laws,
    )
    from processors.inference.model import (
        Model,
        SubModel,
        submodel,
    )
    from processors.inference.posterior import (
        Posterior,
        TokenModel,
        WeightedText,
        generate_posterior,
    )
    from processors.inference.potentials import (
        EOS,
        AutomatonPotential,
        FunctionPotential,
        LMPotential,
        Potential,
        Product,
        byte_vocabulary,
    )
    from processors.inference.samplers import (
        AWRS,
        DirectSampler,
        SetSampler,
        TokenSampler,
    )
    from processors.inference.smc import (
        Particles,
        importance_sampling,
        smc_standard,
        smc_steer,
    )
    from processors.lm.context import (
        LMNextToken,
        LMTokenMask,
    )
    from processors.lm.distribution import (
        Distribution,
    )

__all__ = [
    "AWRS",
    "EOS",
    "AutomatonPotential",
    "Bernoulli",
    "DirectSampler",
    "Distribution",
    "FunctionPotential",
    "Geometric",
    "History",
    "LMNextToken",
    "LMPotential",
    "LMTokenMask",
    "LogCategorical",
    "Model",
    "Particles",
    "Posterior",
    "Potential",
    "Product",
    "SetSampler",
    "SubModel",
    "TokenCategorical",
    "TokenModel",
    "TokenSampler",
    "Transformer",
    "WeightedText",
    "assert_laws",
    "byte_vocabulary",
    "generate_posterior",
    "importance_sampling",
    "sample_word",
    "sample_word_2",
    "smc_standard",
    "smc_steer",
    "submodel",
]

_LAZY = {
    "AWRS": "processors.inference.samplers",
    "AutomatonPotential": "processors.inference.potentials",
    "Bernoulli": "processors.inference.distributions",
    "DirectSampler": "processors.inference.samplers",
    "Distribution": "processors.lm.distribution",
    "EOS": "processors.inference.potentials",
    "FunctionPotential": "processors.inference.potentials",
    "Geometric": "processors.inference.distributions",
    "History": "processors.inference.history",
    "LMNextToken": "processors.lm.context",
    "LMPotential": "processors.inference.potentials",
    "LMTokenMask": "processors.lm.context",
    "LogCategorical": "processors.inference.distributions",
    "Model": "processors.inference.model",
    "Particles": "processors.inference.smc",
    "Posterior": "processors.inference.posterior",
    "Potential": "processors.inference.potentials",
    "Product": "processors.inference.potentials",
    "SetSampler": "processors.inference.samplers",
    "SubModel": "processors.inference.model",
    "TokenCategorical": "processors.inference.distributions",
    "TokenModel": "processors.inference.posterior",
    "TokenSampler": "processors.inference.samplers",
    "Transformer": "processors.inference.distributions",
    "WeightedText": "processors.inference.posterior",
    "assert_laws": "processors.inference.laws",
    "byte_vocabulary": "processors.inference.potentials",
    "generate_posterior": "processors.inference.posterior",
    "importance_sampling": "processors.inference.smc",
    "sample_word": "processors.inference.chunks",
    "sample_word_2": "processors.inference.chunks",
    "smc_standard": "processors.inference.smc",
    "smc_steer": "processors.inference.smc",
    "submodel": "processors.inference.model",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
