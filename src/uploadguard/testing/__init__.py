"""What hosts and plugin authors need to test: a harmless standard picture with its hash list, synthetic media, and
conformance suites. Nothing here is imported by the library itself.
"""
