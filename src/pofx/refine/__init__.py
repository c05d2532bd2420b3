"""Refiners: what corrects another model's samples.

- :mod:`~pofx.refine.weights`: effective size, accept-reject;   - :mod:`~pofx.refine.crossfit`: calibrated ensembles of classifiers;
- :mod:`~pofx.refine.reweighting`: weights of a sample (DCTR);  - :mod:`~pofx.refine.laser`: weights pulled back to a model's noise (LASER).
"""
