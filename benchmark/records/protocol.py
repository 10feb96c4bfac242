"""The version of the protocol. Raise it with any change after which the same configuration gives other numbers.

Recorded cells belong to one version: the pipeline runs all of them again under a new one.

2  rewards' operations counted alike with and without gradient
"""

PROTOCOL_VERSION = 2
