//! theater-sandbox
