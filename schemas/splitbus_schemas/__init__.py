"""The wire contract: topics, control messages, packets, codecs. Pure: no socket, no clock, no thread."""
