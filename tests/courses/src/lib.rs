//! The commands of courses about Kubernetes and Istio, typed as they are written there, against a theater
//! of their own. Each course is a directory beside this crate with a `course.yaml`; see `README.md`.

pub mod course;
pub mod expectation;
pub mod mask;
pub mod parity;
pub mod run;
pub mod session;
pub mod table;
pub mod terminal;
pub mod world;
