//! theater-kube-client
