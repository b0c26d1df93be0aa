//! Lua scripts that wait: a script is a coroutine, which hands over to its host where it needs something that takes time, and goes on
//! with the answer. What takes no time it asks of the host at once.
//!
//! The interpreter is Lua 5.2, built from its C sources. Everything that is not safe about it stands in this crate.
//! Scripts get the libraries base (without files), coroutine, table, string, math, bit32, and of os the clock.

mod ffi;

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::rc::Rc;

use ffi::State;

/// A value on its way in or out. Tables are copied.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names are those of the types
pub enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    String(Vec<u8>),
    Table(Vec<(Value, Value)>),
}

impl Value {
    /// A text.
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self::String(text.as_ref().to_vec())
    }

    /// The text of a string or a number.
    pub fn as_text(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::String(bytes) => Some(String::from_utf8_lossy(bytes)),
            Self::Number(number) => Some(number.to_string().into()),
            _ => None,
        }
    }
}

/// What scripts ask at once: the global function `host` of the prelude.
pub trait Host {
    /// Answers; an error becomes one in the script.
    ///
    /// # Errors
    /// What is wrong about the question.
    fn call(&mut self, question: &str, arguments: Vec<Value>) -> Result<Value, String>;
}

/// How far a script has come.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It is over.
    Done,
    /// It waits for the answer to this.
    Wait(Vec<Value>),
}

/// So many instructions in one go are taken for a loop without end.
const MAX_INSTRUCTIONS: c_int = 10_000_000;
/// Tables are copied to this depth.
const MAX_DEPTH: u32 = 32;

/// An interpreter with its global variables.
pub struct Lua {
    state: Rc<Owned>,
}

struct Owned(*mut State);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the state was made by `luaL_newstate`, and everything that uses it holds this reference.
        unsafe { ffi::lua_close(self.0) }
    }
}

thread_local! {
    /// Who answers the script that runs now.
    static HOST: Cell<Option<*mut dyn Host>> = const { Cell::new(None) };
}

/// Puts the host in its place while a script runs.
struct Answering(Option<*mut dyn Host>);

impl Answering {
    fn by(host: &mut dyn Host) -> Self {
        let host: *mut (dyn Host + '_) = host;
        // SAFETY: only the lifetime changes; the pointer is taken away again when this value is dropped, which is before
        // the reference ends.
        let host: *mut (dyn Host + 'static) = unsafe { std::mem::transmute(host) };
        Self(HOST.replace(Some(host)))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        HOST.set(self.0);
    }
}

impl Lua {
    /// An interpreter. The prelude is Lua that may use the function `host(question, ...)`: it returns true and the answer, or false and
    /// the error. Scripts do not see that function.
    ///
    /// # Errors
    /// When memory is short, or the prelude is wrong.
    pub fn new(prelude: &str) -> Result<Self, String> {
        // SAFETY: plain calls of the interface; the state is checked.
        let state = unsafe {
            let state = ffi::luaL_newstate();
            if state.is_null() {
                return Err("no memory for Lua".into());
            }
            let libraries: [(&CStr, ffi::Function); 7] = [
                (c"_G", ffi::luaopen_base),
                (c"coroutine", ffi::luaopen_coroutine),
                (c"table", ffi::luaopen_table),
                (c"string", ffi::luaopen_string),
                (c"bit32", ffi::luaopen_bit32),
                (c"math", ffi::luaopen_math),
                (c"os", ffi::luaopen_os),
            ];
            for (name, open) in libraries {
                ffi::luaL_requiref(state, name.as_ptr(), open, 1);
                ffi::lua_settop(state, -2);
            }
            ffi::lua_pushcclosure(state, host, 0);
            ffi::lua_setglobal(state, c"host".as_ptr());
            state
        };
        let lua = Self {
            state: Rc::new(Owned(state)),
        };
        lua.run(
            "os = { time = os.time, date = os.date, clock = os.clock, difftime = os.difftime, getenv = os.getenv }\n\
             dofile, loadfile = nil, nil",
            "=libraries",
        )?;
        lua.run(prelude, "=prelude")?;
        lua.run("host = nil", "=prelude")?;
        Ok(lua)
    }

    /// Runs a chunk of text. Its name is told in errors: `=NAME` as it is, otherwise as source.
    ///
    /// # Errors
    /// As Lua says it.
    pub fn run(&self, chunk: &str, name: &str) -> Result<(), String> {
        let state = self.state.0;
        let name = std::ffi::CString::new(name).map_err(|_| "a name with a zero byte")?;
        // SAFETY: the buffers live longer than the calls, which leave nothing on the stack.
        unsafe {
            let loaded = ffi::luaL_loadbufferx(
                state,
                chunk.as_ptr().cast(),
                chunk.len(),
                name.as_ptr(),
                c"t".as_ptr(),
            );
            bound(state);
            let failed = loaded != 0 || ffi::lua_pcallk(state, 0, 0, 0, 0, None) != 0;
            let error = failed.then(|| message(state));
            ffi::lua_settop(state, 0);
            error.map_or(Ok(()), Err)
        }
    }

    /// Whether there is a global function of this name.
    pub fn has(&self, function: &str) -> bool {
        let Ok(name) = std::ffi::CString::new(function) else {
            return false;
        };
        // SAFETY: reading a global variable, and taking it off the stack again.
        unsafe {
            ffi::lua_getglobal(self.state.0, name.as_ptr());
            let found = ffi::lua_type(self.state.0, -1) == ffi::FUNCTION;
            ffi::lua_settop(self.state.0, 0);
            found
        }
    }

    /// A coroutine that will call the global function of this name.
    pub fn coroutine(&self, function: &str) -> Coroutine {
        let name = std::ffi::CString::new(function).unwrap_or_default();
        // SAFETY: the thread is anchored in the registry before anything else happens on the state.
        unsafe {
            let thread = ffi::lua_newthread(self.state.0);
            let anchor = ffi::luaL_ref(self.state.0, ffi::REGISTRY);
            ffi::lua_getglobal(thread, name.as_ptr());
            Coroutine {
                lua: self.state.clone(),
                thread,
                anchor,
            }
        }
    }
}

/// A script under way.
pub struct Coroutine {
    lua: Rc<Owned>,
    thread: *mut State,
    anchor: c_int,
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        // SAFETY: the anchor is ours; the state lives as long as the reference to it.
        unsafe { ffi::luaL_unref(self.lua.0, ffi::REGISTRY, self.anchor) }
    }
}

impl Coroutine {
    /// Lets it run until it is over or waits. The values are the arguments of the function at first, then the answer it waits for.
    ///
    /// # Errors
    /// What the script stumbled over.
    pub fn resume(&mut self, host: &mut dyn Host, values: &[Value]) -> Result<Step, String> {
        let _answering = Answering::by(host);
        // SAFETY: the thread is anchored; values are pushed after the stack was made large enough.
        unsafe {
            if ffi::lua_checkstack(self.thread, values.len() as c_int + 8) == 0 {
                return Err("stack overflow".into());
            }
            for value in values {
                push(self.thread, value, 0);
            }
            bound(self.thread);
            match ffi::lua_resume(self.thread, self.lua.0, values.len() as c_int) {
                0 => Ok(Step::Done),
                ffi::YIELD => {
                    let all = (1..=ffi::lua_gettop(self.thread))
                        .map(|at| pull(self.thread, at, 0))
                        .collect();
                    ffi::lua_settop(self.thread, 0);
                    Ok(Step::Wait(all))
                }
                _ => Err(message(self.thread)),
            }
        }
    }
}

/// Ends a run after too many instructions.
unsafe fn bound(state: *mut State) {
    // SAFETY: the hook only raises an error, which unwinds frames of C alone.
    unsafe { ffi::lua_sethook(state, Some(too_long), ffi::MASK_COUNT, MAX_INSTRUCTIONS) };
}

unsafe extern "C-unwind" fn too_long(state: *mut State, _: *mut c_void) {
    // SAFETY: called by the interpreter; nothing in this frame needs to be dropped.
    unsafe { ffi::luaL_error(state, c"the script runs too long".as_ptr()) };
}

/// The function `host`.
unsafe extern "C-unwind" fn host(state: *mut State) -> c_int {
    // SAFETY: called by the interpreter with its arguments on the stack. No error is raised from here: there are values to be dropped.
    unsafe {
        let count = ffi::lua_gettop(state);
        let mut arguments: Vec<Value> = (1..=count).map(|at| pull(state, at, 0)).collect();
        ffi::lua_settop(state, 0);
        let question = match arguments.is_empty() {
            true => Value::Nil,
            false => arguments.remove(0),
        };
        let answer = match (HOST.get(), question.as_text()) {
            // Taken away meanwhile: an answer cannot ask again.
            (Some(host), Some(question)) => {
                HOST.set(None);
                let answer = (*host).call(&question, arguments);
                HOST.set(Some(host));
                answer
            }
            _ => Err("nobody answers here".to_owned()),
        };
        let (well, value) = match answer {
            Ok(value) => (1, value),
            Err(error) => (0, Value::text(error)),
        };
        ffi::lua_pushboolean(state, well);
        push(state, &value, 0);
        2
    }
}

/// The value on top as an error, taken off.
unsafe fn message(state: *mut State) -> String {
    // SAFETY: the caller has an error on top of the stack.
    unsafe {
        let value = pull(state, -1, 0);
        ffi::lua_settop(state, -2);
        match value.as_text() {
            Some(text) => text.into_owned(),
            None => "(error object is not a string)".to_owned(),
        }
    }
}

unsafe fn push(state: *mut State, value: &Value, depth: u32) {
    // SAFETY: there is room for a few values on the stack: of a call's own, or made by the caller and below.
    unsafe {
        match value {
            Value::Nil => ffi::lua_pushnil(state),
            Value::Bool(value) => ffi::lua_pushboolean(state, (*value).into()),
            Value::Number(value) => ffi::lua_pushnumber(state, *value),
            Value::String(bytes) => {
                ffi::lua_pushlstring(state, bytes.as_ptr().cast(), bytes.len());
            }
            Value::Table(entries) => {
                if depth > MAX_DEPTH || ffi::lua_checkstack(state, 4) == 0 {
                    return ffi::lua_pushnil(state);
                }
                ffi::lua_createtable(state, 0, entries.len() as c_int);
                for (key, value) in entries {
                    if matches!(key, Value::Nil | Value::Table(_)) {
                        continue;
                    }
                    push(state, key, depth + 1);
                    push(state, value, depth + 1);
                    ffi::lua_rawset(state, -3);
                }
            }
        }
    }
}

unsafe fn pull(state: *mut State, at: c_int, depth: u32) -> Value {
    // SAFETY: `at` is a place on the stack; what is pushed here is taken off again.
    unsafe {
        match ffi::lua_type(state, at) {
            ffi::BOOLEAN => Value::Bool(ffi::lua_toboolean(state, at) != 0),
            ffi::NUMBER => Value::Number(ffi::lua_tonumberx(state, at, std::ptr::null_mut())),
            ffi::STRING => {
                let mut length = 0;
                let text: *const c_char = ffi::lua_tolstring(state, at, &raw mut length);
                Value::String(std::slice::from_raw_parts(text.cast::<u8>(), length).to_vec())
            }
            ffi::TABLE if depth <= MAX_DEPTH && ffi::lua_checkstack(state, 4) != 0 => {
                let at = ffi::lua_absindex(state, at);
                let mut entries = Vec::new();
                ffi::lua_pushnil(state);
                while ffi::lua_next(state, at) != 0 {
                    entries.push((pull(state, -2, depth + 1), pull(state, -1, depth + 1)));
                    ffi::lua_settop(state, -2);
                }
                Value::Table(entries)
            }
            _ => Value::Nil,
        }
    }
}

#[cfg(test)]
mod tests;
