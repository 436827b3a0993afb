"""What pools are made of.

Every pool: `arrangement`. On this machine: `gpus`, `process`, `server`. On an engine: `engine`, `engine_pool`, `agent`,
`mailbox`.
"""
