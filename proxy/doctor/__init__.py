"""`icr-proxy doctor`: the whole way of a credential, step by step, each failure with its remedy."""
