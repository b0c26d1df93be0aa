//! Label and field selectors.

mod fields;
mod label;

pub use fields::FieldSelector;
pub use label::{LabelSelector, Op, Requirement};
