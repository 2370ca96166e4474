"""The state of the emulated registry: credentials, entities, movements of credits."""
