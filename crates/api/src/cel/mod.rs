//! The Common Expression Language, as Kubernetes uses it for the rules of CustomResourceDefinitions.
//!
//! An expression is parsed ([`parse`]), checked against the types of a schema ([`check`]), and evaluated
//! ([`Expression::eval`]). The functions are those of CEL's standard library and of the libraries that Kubernetes 1.32 adds:
//! lists, regular expressions, URLs, quantities, addresses, formats, sets, optional values.
//!
//! Crates for CEL have no type checker, which is what refuses a wrong rule when a definition is created, none of Kubernetes'
//! functions, and bring a parser run time along; the words of errors would be theirs. So the language is read here.

pub mod admission;
mod check;
mod eval;
mod functions;
mod lexer;
mod library;
mod parser;
mod signatures;
mod types;
mod value;

pub use check::{Checked, check};
pub use parser::parse;
pub use types::{Type, of_schema, plain, to_value};
pub use value::{Key, Map, Value};

/// A parsed expression.
#[derive(Debug, Clone)]
pub struct Expression {
    source: String,
    root: parser::Node,
}

/// A mistake at a place in an expression (characters from its beginning).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub at: usize,
    pub what: String,
}

/// Mistakes as they are printed: with the line and a mark below it.
pub(crate) fn report(source: &str, mistakes: &[Mistake]) -> String {
    let each = mistakes.iter().map(|mistake| {
        if source.is_empty() {
            // There is no place in nothing.
            return format!("ERROR: <input>:1:0: {}", mistake.what);
        }
        let before: Vec<char> = source.chars().take(mistake.at).collect();
        let line = before.iter().filter(|c| **c == '\n').count();
        let column = before.iter().rev().take_while(|c| **c != '\n').count();
        let text = source.split('\n').nth(line).unwrap_or("");
        // Below what takes several bytes cel-go puts marks of full width.
        let wide = |c: char| c.len_utf8() > 1;
        let dots: String = text
            .chars()
            .take(column)
            .map(|c| if wide(c) { '．' } else { '.' })
            .collect();
        let mark = match text.chars().nth(column) {
            Some(c) if wide(c) => '＾',
            _ => '^',
        };
        format!(
            "ERROR: <input>:{}:{}: {}\n | {text}\n | {dots}{mark}",
            line + 1,
            column + 1,
            mistake.what,
        )
    });
    each.collect::<Vec<_>>().join("\n")
}
