//! theater-translate
