"""Tests of the compatible API: the older package as the oracle, and ours."""
