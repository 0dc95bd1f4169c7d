//! Reads configuration files: includes, places of errors, secrets.
