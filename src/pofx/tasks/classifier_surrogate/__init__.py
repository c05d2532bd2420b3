"""What a tagger would say of a jet, learnt from its features, with a band: classifier surrogates (arXiv:2402.15558)."""
