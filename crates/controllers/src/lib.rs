//! theater-controllers
