//! The interface of Lua 5.2, as far as it is needed: `lua.h`, `lauxlib.h`, `lualib.h`.

use std::ffi::{c_char, c_int, c_void};

/// `lua_State`
#[repr(C)]
pub struct State {
    _private: [u8; 0],
}

pub type Function = unsafe extern "C-unwind" fn(*mut State) -> c_int;
pub type Hook = unsafe extern "C-unwind" fn(*mut State, *mut c_void);

pub const REGISTRY: c_int = -1_001_000;
pub const YIELD: c_int = 1;
pub const MASK_COUNT: c_int = 8;

pub const BOOLEAN: c_int = 1;
pub const NUMBER: c_int = 3;
pub const STRING: c_int = 4;
pub const TABLE: c_int = 5;
pub const FUNCTION: c_int = 6;

unsafe extern "C-unwind" {
    pub fn luaL_newstate() -> *mut State;
    pub fn lua_close(state: *mut State);
    pub fn luaL_requiref(state: *mut State, name: *const c_char, open: Function, global: c_int);
    pub fn luaL_loadbufferx(
        state: *mut State,
        chunk: *const c_char,
        length: usize,
        name: *const c_char,
        mode: *const c_char,
    ) -> c_int;
    pub fn lua_pcallk(
        state: *mut State,
        arguments: c_int,
        results: c_int,
        handler: c_int,
        context: c_int,
        continuation: Option<Function>,
    ) -> c_int;
    pub fn lua_newthread(state: *mut State) -> *mut State;
    pub fn lua_resume(state: *mut State, from: *mut State, arguments: c_int) -> c_int;
    pub fn luaL_ref(state: *mut State, table: c_int) -> c_int;
    pub fn luaL_unref(state: *mut State, table: c_int, reference: c_int);
    pub fn luaL_error(state: *mut State, format: *const c_char, ...) -> c_int;
    pub fn lua_sethook(state: *mut State, hook: Option<Hook>, mask: c_int, count: c_int) -> c_int;

    pub fn lua_gettop(state: *mut State) -> c_int;
    pub fn lua_settop(state: *mut State, top: c_int);
    pub fn lua_absindex(state: *mut State, at: c_int) -> c_int;
    pub fn lua_checkstack(state: *mut State, more: c_int) -> c_int;
    pub fn lua_type(state: *mut State, at: c_int) -> c_int;
    pub fn lua_toboolean(state: *mut State, at: c_int) -> c_int;
    pub fn lua_tonumberx(state: *mut State, at: c_int, is_number: *mut c_int) -> f64;
    pub fn lua_tolstring(state: *mut State, at: c_int, length: *mut usize) -> *const c_char;
    pub fn lua_next(state: *mut State, table: c_int) -> c_int;

    pub fn lua_pushnil(state: *mut State);
    pub fn lua_pushboolean(state: *mut State, value: c_int);
    pub fn lua_pushnumber(state: *mut State, value: f64);
    pub fn lua_pushlstring(state: *mut State, text: *const c_char, length: usize) -> *const c_char;
    pub fn lua_pushcclosure(state: *mut State, function: Function, values: c_int);
    pub fn lua_createtable(state: *mut State, array: c_int, entries: c_int);
    pub fn lua_rawset(state: *mut State, table: c_int);
    pub fn lua_getglobal(state: *mut State, name: *const c_char);
    pub fn lua_setglobal(state: *mut State, name: *const c_char);

    pub fn luaopen_base(state: *mut State) -> c_int;
    pub fn luaopen_coroutine(state: *mut State) -> c_int;
    pub fn luaopen_table(state: *mut State) -> c_int;
    pub fn luaopen_string(state: *mut State) -> c_int;
    pub fn luaopen_bit32(state: *mut State) -> c_int;
    pub fn luaopen_math(state: *mut State) -> c_int;
    pub fn luaopen_os(state: *mut State) -> c_int;
}
