"""Cross-section measurements beyond the Gaussian covariance: check, density, p-values, fits, releases."""
