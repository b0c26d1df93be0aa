//! theater-apiserver
