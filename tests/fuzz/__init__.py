"""Fuzzing by atheris and hypothesis: whatever bytes come, a reader refuses them or agrees with the libraries."""
