"""Tests: `unit/` mirrors the package, `property/` compares with brute force and with other implementations."""
