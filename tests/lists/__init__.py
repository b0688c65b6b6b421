"""Tests of the list readers. Every hash in them is made up."""
