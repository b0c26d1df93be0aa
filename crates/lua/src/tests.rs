use super::*;

struct Echo(Vec<String>);

impl Host for Echo {
    fn call(&mut self, question: &str, arguments: Vec<Value>) -> Result<Value, String> {
        self.0.push(question.to_owned());
        match question {
            "wrong" => Err("that is wrong".into()),
            _ => Ok(arguments.into_iter().next().unwrap_or(Value::Nil)),
        }
    }
}

const PRELUDE: &str = "local ask = host\n\
    function call(...) local well, answer = ask(...) if not well then error(answer, 2) end return answer end\n\
    function wait(...) return coroutine.yield(...) end";

fn lua(script: &str) -> Lua {
    let lua = Lua::new(PRELUDE).unwrap();
    lua.run(script, "script").unwrap();
    lua
}

#[test]
fn a_script_asks_waits_and_goes_on() {
    let lua = lua("function main(name)\n\
         local a = call('first', { n = 1, list = { 'x', 'y' } })\n\
         local well, b = pcall(function() return wait('body', name) end)\n\
         seen = a.list[2] .. b .. tostring(well) .. 6 / 2\n\
         end\n\
         function tell() call(seen) end");
    let mut host = Echo(Vec::new());
    let mut running = lua.coroutine("main");
    let step = running.resume(&mut host, &[Value::text("bob")]);
    assert_eq!(
        step,
        Ok(Step::Wait(vec![Value::text("body"), Value::text("bob")]))
    );
    assert_eq!(
        running.resume(&mut host, &[Value::text("!")]),
        Ok(Step::Done)
    );
    let mut telling = lua.coroutine("tell");
    assert_eq!(telling.resume(&mut host, &[]), Ok(Step::Done));
    assert_eq!(
        host.0,
        ["first", "y!true3"],
        "numbers are as LuaJIT writes them"
    );
}

#[test]
fn errors_name_the_place() {
    let lua = lua("function main() call('wrong') end");
    let failed = lua.coroutine("main").resume(&mut Echo(Vec::new()), &[]);
    assert_eq!(
        failed,
        Err("[string \"script\"]:1: that is wrong".to_owned())
    );
    let wrong = Lua::new("").unwrap().run("function (", "script");
    assert!(wrong.unwrap_err().contains("<name> expected"));
    assert!(!lua.has("other") && lua.has("main"));
    let missing = lua.coroutine("other").resume(&mut Echo(Vec::new()), &[]);
    assert_eq!(missing, Err("attempt to call a nil value".to_owned()));
}

#[test]
fn nothing_of_the_machine_is_in_reach() {
    let lua = lua("function main()\n\
         call(tostring(io) .. tostring(dofile) .. tostring(loadfile) .. tostring(require) .. tostring(host))\n\
         call(tostring(os.execute) .. tostring(os.remove) .. tostring(debug) .. type(os.time()))\n\
         end");
    let mut host = Echo(Vec::new());
    lua.coroutine("main").resume(&mut host, &[]).unwrap();
    assert_eq!(host.0, ["nilnilnilnilnil", "nilnilnilnumber"]);
}

#[test]
fn loops_without_end_and_deep_recursion_are_errors() {
    let lua = lua("function main() while true do end end\n\
         function deep(n) return 1 + deep(n) end");
    let failed = lua.coroutine("main").resume(&mut Echo(Vec::new()), &[]);
    assert!(failed.unwrap_err().contains("runs too long"));
    let failed = lua.coroutine("deep").resume(&mut Echo(Vec::new()), &[]);
    assert!(failed.unwrap_err().contains("stack overflow"));
}
