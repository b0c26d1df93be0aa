//! What a script consists of.

use std::cell::RefCell;
use std::rc::Rc;

/// Commands one after the other.
pub type List = Vec<Item>;

/// One of them.
#[derive(Debug)]
pub struct Item {
    pub chain: Chain,
    /// `&`: nobody waits for it.
    pub background: bool,
}

/// Pipelines joined by `&&` and `||`.
#[derive(Debug)]
pub struct Chain {
    pub first: Pipeline,
    /// Whether the previous one must have succeeded (`&&`) or failed (`||`).
    pub rest: Vec<(bool, Pipeline)>,
}

/// Commands joined by `|`.
#[derive(Debug)]
pub struct Pipeline {
    /// `!`.
    pub negated: bool,
    pub commands: Vec<Command>,
}

/// A command with its redirections.
#[derive(Debug)]
pub struct Command {
    pub kind: Kind,
    pub redirections: Vec<Redirection>,
}

#[derive(Debug)]
pub enum Kind {
    Simple {
        assignments: Vec<(String, Word)>,
        words: Vec<Word>,
    },
    Group(List),
    Subshell(List),
    If {
        branches: Vec<(List, List)>,
        otherwise: Option<List>,
    },
    Loop {
        /// `until`.
        negated: bool,
        condition: List,
        body: List,
    },
    For {
        name: String,
        /// Without `in`: the positional parameters.
        words: Option<Vec<Word>>,
        body: List,
    },
    Case {
        word: Word,
        arms: Vec<(Vec<Word>, List)>,
    },
    Function {
        name: String,
        body: Rc<Command>,
    },
}

#[derive(Debug)]
pub struct Redirection {
    /// The descriptor that is changed.
    pub fd: i32,
    pub target: Target,
}

#[derive(Debug)]
pub enum Target {
    Read(Word),
    Write(Word),
    Append(Word),
    ReadWrite(Word),
    /// `>&2`, `<&3`, `>&-`.
    Duplicate(Word),
    /// `<<EOF`; its text comes after the line.
    Here(Rc<RefCell<Word>>),
}

/// Pieces that make one word, or several.
pub type Word = Vec<Part>;

#[derive(Debug)]
pub struct Part {
    pub kind: PartKind,
    /// Within quotes: neither split nor a pattern.
    pub quoted: bool,
}

#[derive(Debug)]
pub enum PartKind {
    Text(String),
    Parameter { name: String, operation: Operation },
    Substitution(Rc<List>),
    Arithmetic(Word),
}

/// What `${name…}` does with the value.
#[derive(Debug)]
pub enum Operation {
    Value,
    Length,
    /// `:-`; `colon`: empty counts as unset.
    Default {
        colon: bool,
        word: Word,
    },
    Assign {
        colon: bool,
        word: Word,
    },
    Require {
        colon: bool,
        word: Word,
    },
    Alternative {
        colon: bool,
        word: Word,
    },
    RemovePrefix {
        longest: bool,
        pattern: Word,
    },
    RemoveSuffix {
        longest: bool,
        pattern: Word,
    },
}
