"""Greylisting; the same as Milter.greysql, under the name that older programs import."""

from Milter.greysql import Greylist

__all__ = ["Greylist"]
