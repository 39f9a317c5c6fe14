"""Tests of Milter's companion modules: one file for each of them."""
