//! Matchers of strings, headers, query parameters, metadata and fractions.
