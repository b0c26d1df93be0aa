//! Builds the interpreter and links it.

fn main() {
    // Lua 5.2 is nearest to LuaJIT, which Envoy has: numbers are floats, `pairs` can be overloaded, protected calls may wait.
    lua_src::Build::new()
        .debug(false)
        .build(lua_src::Lua52)
        .print_cargo_metadata();
    println!("cargo:rerun-if-changed=build.rs");
}
