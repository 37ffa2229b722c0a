//! Kubernetes quantities (`500m`, `1.5Gi`, `1e3`), exact and rounded up to thousandths as the API server does.
