//! shell-image
