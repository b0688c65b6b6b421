"""What hosts and plugin authors need to test: a harmless standard picture with its hash list, synthetic media, and
conformance suites. All but the hash list stays unimported until somebody asks for it.
"""
