//! movie-service
