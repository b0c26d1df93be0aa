//! curl-image
