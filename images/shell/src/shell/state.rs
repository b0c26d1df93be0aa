//! Variables, functions and options of a running shell.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::arithmetic;
use super::ast::Command;

/// A variable.
#[derive(Clone, Debug, Default)]
pub struct Variable {
    /// Nothing: marked (`export A`), but not set.
    pub value: Option<String>,
    pub exported: bool,
    pub read_only: bool,
}

/// Why the normal course ends.
#[derive(Debug, PartialEq)]
pub enum Flow {
    Break(usize),
    Continue(usize),
    Return(i32),
    Exit(i32),
    /// A mistake in the script: ends it, but not an interactive shell.
    Error(i32),
}

/// The result of a command: its status, or where to go instead.
pub type Run<T = i32> = Result<T, Flow>;

/// Everything a subshell inherits.
pub struct Shell {
    pub name: String,
    pub parameters: Vec<String>,
    pub variables: HashMap<String, Variable>,
    pub functions: HashMap<String, Rc<Command>>,
    /// What `local` has hidden, per running function.
    pub hidden: Vec<Vec<(String, Option<Variable>)>>,
    pub status: i32,
    pub pid: u32,
    pub last_background: Option<i32>,
    /// Ended children that nobody has asked for yet.
    pub ended: HashMap<i32, i32>,
    pub traps: BTreeMap<i32, String>,
    pub exit_on_error: bool,
    pub unset_is_error: bool,
    pub trace: bool,
    pub no_globbing: bool,
    pub no_execution: bool,
    pub interactive: bool,
    /// Loops around the running command.
    pub loops: usize,
    /// Conditions around it: a failure there is an answer, not an error.
    pub tested: usize,
    /// Functions and sourced files around it.
    pub calls: usize,
    /// The status of the last `$(…)`, the status of an assignment.
    pub substitution_status: Option<i32>,
    pub is_subshell: bool,
}

impl Shell {
    /// A shell with the process's environment.
    pub fn new(name: String, parameters: Vec<String>) -> Self {
        let mut variables: HashMap<String, Variable> = std::env::vars_os()
            .map(|(name, value)| {
                let variable = Variable {
                    value: Some(value.to_string_lossy().into_owned()),
                    exported: true,
                    read_only: false,
                };
                (name.to_string_lossy().into_owned(), variable)
            })
            .collect();
        let plain = |value: &str| Variable {
            value: Some(value.to_owned()),
            ..Variable::default()
        };
        variables.insert("IFS".into(), plain(" \t\n"));
        variables.insert("OPTIND".into(), plain("1"));
        variables.entry("PATH".into()).or_insert_with(|| {
            plain("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        });
        if let Ok(directory) = std::env::current_dir() {
            variables.entry("PWD".into()).or_default().value =
                Some(directory.to_string_lossy().into_owned());
        }
        Shell {
            name,
            parameters,
            variables,
            functions: HashMap::new(),
            hidden: Vec::new(),
            status: 0,
            pid: std::process::id(),
            last_background: None,
            ended: HashMap::new(),
            traps: BTreeMap::new(),
            exit_on_error: false,
            unset_is_error: false,
            trace: false,
            no_globbing: false,
            no_execution: false,
            interactive: false,
            loops: 0,
            tested: 0,
            calls: 0,
            substitution_status: None,
            is_subshell: false,
        }
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.value.as_deref()
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<(), String> {
        let variable = self.variables.entry(name.to_owned()).or_default();
        if variable.read_only {
            return Err(format!("{name}: is read only"));
        }
        variable.value = Some(value.into());
        Ok(())
    }

    /// Says what is wrong.
    pub fn complain(&self, text: impl std::fmt::Display) {
        crate::output::error_line(&format!("{}: {text}", self.name));
    }

    /// An error that ends the script, or leads back to the prompt.
    pub fn fatal(&self, text: impl std::fmt::Display) -> Flow {
        self.complain(text);
        Flow::Error(2)
    }

    /// `$-`.
    pub fn option_letters(&self) -> String {
        [
            (self.exit_on_error, 'e'),
            (self.no_globbing, 'f'),
            (self.interactive, 'i'),
            (self.no_execution, 'n'),
            (self.unset_is_error, 'u'),
            (self.trace, 'x'),
        ]
        .into_iter()
        .filter_map(|(on, letter)| on.then_some(letter))
        .collect()
    }

    /// Variables for programs, as `NAME=value`.
    pub fn environment(&self) -> Vec<String> {
        self.variables
            .iter()
            .filter(|(_, variable)| variable.exported)
            .filter_map(|(name, variable)| Some(format!("{name}={}", variable.value.as_ref()?)))
            .collect()
    }
}

impl arithmetic::Variables for Shell {
    fn get(&self, name: &str) -> Option<String> {
        Shell::get(self, name).map(str::to_owned)
    }

    fn set(&mut self, name: &str, value: i64) -> Result<(), String> {
        Shell::set(self, name, value.to_string())
    }
}
