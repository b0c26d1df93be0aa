//! theater-kubelet
