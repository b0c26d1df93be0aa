//! theater-api
