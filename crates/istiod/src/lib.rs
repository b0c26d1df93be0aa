//! theater-istiod
