//! redis-image
