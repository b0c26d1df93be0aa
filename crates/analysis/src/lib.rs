//! What `istioctl analyze` finds: objects in, messages out.
//!
//! Objects of files ([`files`]) and of clusters go into a [`Store`]; [`analyze`] runs the [`analyzers`] over it and gives their messages in
//! order; [`print()`] writes them. Pure: files and clusters are read elsewhere, and the time is an argument.
//!
//! The rules, codes, levels and texts are those of Istio's `pkg/config/analysis`. Where Istio takes things in the random order of Go's maps,
//! the order here is that of the names.

mod analyze;
pub mod analyzers;
mod context;
mod decode;
pub mod documents;
mod fields;
pub mod files;
pub mod go;
mod hosts;
mod in_mesh;
mod json;
mod kind;
mod labels;
pub mod mesh;
mod message;
mod messages;
mod object;
mod print;
mod proxy_config;
mod services;
mod validation;
pub use api::go::yaml;

pub use analyze::{Options, Report, analyze, kinds, offer_files};
pub use context::{Context, Store};
pub use kind::{KINDS, Kind, KindInfo};
pub use message::{DOCUMENTATION, Level, Message, Suppression};
pub use messages::CODES;
pub use object::{OWN_CLUSTER, Object, Origin, Place};
pub use print::{Format, print};
