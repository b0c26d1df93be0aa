//! http-echo-image
